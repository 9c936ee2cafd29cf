"""Runs that come in together are committed together, and each sender is told of its own."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn
from fastapi import FastAPI

from manifest.errors import DamagedRun, DigestMismatch, DigestWrong, StoreUnusable
from manifest.models import Manifest
from manifest_migrations.upgrade import open_store
from manifest_server.app import create_app
from manifest_server.database import open_engine, sqlite_url, transaction
from manifest_server.incoming import Incoming
from manifest_server.intake import Intake
from manifest_server.keeping import Kept, Reading
from manifest_server.settings import ServerSettings
from manifest_server.sqlstore import SqlStore

MakeManifest = Callable[..., Manifest]


def put_together(store: SqlStore, readings: list[Reading]) -> list[object]:
    """What came of runs that were committed in one group, behind one that was held up."""
    has_begun, may_go_on = threading.Event(), threading.Event()

    def held(_store: SqlStore) -> Incoming:
        has_begun.set()
        assert may_go_on.wait(60)
        raise LookupError

    async def put() -> list[object]:
        with Intake(store, most_waiting=100) as intake:
            first = asyncio.create_task(intake.put_run(held))
            await asyncio.to_thread(has_begun.wait)
            tasks = [asyncio.create_task(intake.put_run(each)) for each in readings]
            await asyncio.sleep(0)  # until each has begun
            assert len(intake) == len(readings) + 1
            may_go_on.set()
            with suppress(LookupError):
                await first
            return [*await asyncio.gather(*tasks, return_exceptions=True)]

    return asyncio.run(put())


def given(manifest: Manifest) -> Reading:
    """A request that holds a manifest."""
    return lambda _store: Incoming.of(manifest)


def broken(_store: SqlStore) -> Incoming:
    raise ValueError("no manifest")


def test_each_of_a_group_is_kept_or_refused_by_itself(
    store: SqlStore, make_manifest: MakeManifest
) -> None:
    kept, first, last = (make_manifest() for _ in range(3))
    going_on = make_manifest(is_sealed=False)
    grown = make_manifest(is_sealed=False, id=going_on.id, sections={"config": {"lr": 1}})
    late = make_manifest(id=first.id, project="late")
    other = make_manifest(id=kept.id, project="other", sections={"config": {"only": "other"}})
    wrong = make_manifest().model_copy(update={"project": "changed"})
    damaged = make_manifest(is_sealed=False).model_copy(
        update={"sections": {"config": {"key": "\ud800"}}}
    )
    store.put_run(kept)
    several = [first, other, wrong, damaged, going_on, kept, late, grown, last]
    readings: list[Reading] = [broken, *map(given, several)]
    found = put_together(store, readings)
    assert [type(each) for each in found] == [
        ValueError,
        Kept,
        DigestMismatch,
        DigestWrong,
        DamagedRun,
        Kept,
        Kept,
        DigestMismatch,
        Kept,
        Kept,
    ]
    assert store.digests(each.id for each in (first, kept, last)) == {
        each.id: each.digest for each in (first, kept, last)
    }
    assert store.get_run(going_on.id) == grown
    assert len(store.list_runs()) == 4
    # Nothing of what was refused is left.
    assert set(store.list_projects()) == {"digits"}
    assert "config.only" not in store.list_fields("config.")


def test_one_that_the_database_cannot_take_does_not_fail_the_others(
    store: SqlStore, make_manifest: MakeManifest
) -> None:
    good, poison, better = make_manifest(), make_manifest(name="poison"), make_manifest()
    with transaction(store._engine, is_writing=True) as connection:
        connection.exec_driver_sql(_REFUSING[store.backend])
    found = put_together(store, list(map(given, [good, poison, better])))
    assert [type(each) for each in found] == [Kept, StoreUnusable, Kept]
    assert {run.id for run in store.list_runs()} == {good.id, better.id}


_REFUSING = {
    "sqlite": "CREATE TRIGGER refusing BEFORE INSERT ON runs WHEN new.name = 'poison' "
    "BEGIN SELECT RAISE(ABORT, 'not this one'); END",
    "postgresql": "ALTER TABLE runs ADD CONSTRAINT refusing CHECK (name <> 'poison')",
}


def test_what_is_kept_already_is_answered_as_before(
    store: SqlStore, make_manifest: MakeManifest
) -> None:
    kept, new = [make_manifest() for _ in range(3)], make_manifest()
    store.put_runs((run, None) for run in kept)
    going_on = kept[1].model_copy(update={"digest": "", "digests": {}, "status": "running"})
    assert put_together(store, list(map(given, [kept[0], going_on, new]))) == [
        Kept(kept[0].id, kept[0].digest),
        Kept(going_on.id, ""),
        Kept(new.id, new.digest),
    ]
    assert [store.get_run(run.id) for run in [*kept, new]] == [*kept, new]


def test_a_database_that_fails_fails_those_who_wait_and_no_later_ones(
    sqlite_path: Path, make_manifest: MakeManifest
) -> None:
    url = sqlite_url(sqlite_path)
    runs = [make_manifest() for _ in range(3)]
    with open_store(url, busy_timeout_seconds=0) as store:
        with closing(sqlite3.connect(sqlite_path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            found = put_together(store, list(map(given, runs)))
            assert [type(each) for each in found] == [StoreUnusable] * 3
        assert put_together(store, list(map(given, runs))) == [
            Kept(run.id, run.digest) for run in runs
        ]


def test_what_a_service_commits_is_on_the_disk_and_an_index_need_not_be(sqlite_path: Path) -> None:
    url = sqlite_url(sqlite_path)
    open_store(url).close()
    full, normal = 2, 1
    for options, expected in (({}, full), ({"is_durable": False}, normal)):
        engine = open_engine(url, **options)
        with transaction(engine) as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == expected
        engine.dispose()


class Running(NamedTuple):
    """A service in a thread, whose database the test can hold."""

    app: FastAPI
    server: uvicorn.Server
    port: int
    thread: threading.Thread

    def put(self, manifest: Manifest) -> tuple[int, dict[str, str]]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = manifest.model_dump_json(by_alias=True, exclude_unset=True)
        try:
            connection.request("PUT", f"/api/v1/runs/{manifest.id}", body)
            answer = connection.getresponse()
            answer.read()
            return answer.status, dict(answer.getheaders())
        finally:
            connection.close()

    def listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except ConnectionError:  # refused, or taken up by a listener that closed just then
            return False
        return True

    def wait_for_waiting(self, count: int) -> None:
        while len(self.app.state.intake) < count:
            assert self.thread.is_alive()


@contextmanager
def running(url: str, **settings: Any) -> Iterator[Running]:
    app = create_app(ServerSettings(database_url=url, **settings))
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield Running(app, server, server.servers[0].sockets[0].getsockname()[1], thread)
    server.should_exit = True
    thread.join()


@pytest.fixture
def url(sqlite_path: Path) -> str:
    """The address of an empty store."""
    address = sqlite_url(sqlite_path)
    open_store(address).close()
    return address.render_as_string()


class Senders:
    """Threads that each put one run."""

    def __init__(self, service: Running) -> None:
        self.statuses: dict[str, int] = {}
        self._service = service
        self._threads: list[threading.Thread] = []

    def send(self, manifest: Manifest) -> None:
        def put() -> None:
            with suppress(OSError, HTTPException):
                self.statuses[manifest.id] = self._service.put(manifest)[0]

        self._threads.append(threading.Thread(target=put))
        self._threads[-1].start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


def test_more_than_may_wait_are_told_to_come_again(
    url: str, sqlite_path: Path, make_manifest: MakeManifest
) -> None:
    runs = [make_manifest() for _ in range(4)]
    with running(url, most_waiting_runs=3) as service:
        senders = Senders(service)
        with held(sqlite_path):
            for run in runs[:3]:
                senders.send(run)
            service.wait_for_waiting(3)
            status, headers = service.put(runs[3])
        senders.join()
        assert (status, headers["retry-after"]) == (503, "1")
        assert senders.statuses == {run.id: 200 for run in runs[:3]}
        assert service.put(runs[3])[0] == 200


def test_a_service_that_ends_answers_all_that_it_took(
    url: str, sqlite_path: Path, make_manifest: MakeManifest
) -> None:
    runs = [make_manifest() for _ in range(6)]
    with running(url) as service:
        senders = Senders(service)
        with held(sqlite_path):
            for run in runs:
                senders.send(run)
            service.wait_for_waiting(6)
            service.server.should_exit = True
            while service.listens():
                assert service.thread.is_alive()
        senders.join()
        service.thread.join()
    assert senders.statuses == {run.id: 200 for run in runs}
    with open_store(url) as store:
        assert len(store.list_runs()) == 6


@contextmanager
def held(path: Path) -> Iterator[None]:
    """A database that nobody else can write."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")
