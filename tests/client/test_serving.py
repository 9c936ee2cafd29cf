"""The service as operators start, stop and look after it: real processes on real sockets."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from manifest.rundir import RunDirectory
from manifest.trail import TrailWriter
from manifest_client.embedded import take_in
from manifest_migrations.upgrade import open_store

Record = Callable[..., RunDirectory]

MANIFEST = str(Path(sys.executable).with_name("manifest"))


class Answer(NamedTuple):
    """What a command answered; the fixture `call` gives one of this shape."""

    code: int
    out: str
    err: str


Call = Callable[..., Answer]


@contextmanager
def served(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The service of this folder as a process, and the host and port it says it listens at."""
    process = subprocess.Popen(
        [MANIFEST, "server", "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        assert said, process.communicate()[1]
        yield process, urlsplit(said.split()[-1]).netloc
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # workers left alone would serve on, unheard
        process.communicate()


def get(address: str, path: str, **headers: str) -> tuple[int, bytes]:
    connection = HTTPConnection(address, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_serves_the_runs_of_this_folder_and_answers_what_is_under_way_at_the_end(
    record: Record,
) -> None:
    run = record(name="first")
    with served() as (process, address):
        assert get(address, "/readyz")[0] == 200
        status, body = get(address, "/api/v1/runs")
        assert (status, [each["id"] for each in json.loads(body)["runs"]]) == (200, [run.id])

        # A request whose body has only half come when the signal does.
        manifest = (run.path / "manifest.json").read_bytes()
        connection = HTTPConnection(address, timeout=30)
        connection.putrequest("PUT", f"/api/v1/runs/{run.id}")
        connection.putheader("Content-Length", str(len(manifest)))
        connection.endheaders()
        connection.send(manifest[:100])
        get(address, "/healthz")  # by then the request above has begun
        process.send_signal(signal.SIGTERM)
        wait_for_line(process, "Shutting down")
        connection.send(manifest[100:])

        assert connection.getresponse().status == 200
        assert process.wait(30) == 0
        with pytest.raises(OSError):
            get(address, "/healthz")


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in json.loads(line)["message"]:
            return
    raise AssertionError(f"never said {text!r}")


def test_several_workers_serve_one_database_and_end_together(base: Path) -> None:
    database = f"sqlite:///{base.parent}/runs.db"
    with served("--database", database, "--workers", "2") as (process, address):
        assert get(address, "/readyz")[0] == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_takes_in_runs_that_are_recorded_while_it_serves(
    base: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    from manifest_client.cli import serving
    from manifest_server.sqlstore import SqlStore

    waiting = threading.Event()
    monkeypatch.setattr(serving, "_LOOK_EVERY_SECONDS", 0.05)
    base.mkdir()
    with serving._kept_up_to_date(None), SqlStore.open(serving._embedded_url()) as store:
        assert store.list_runs() == []
        run = record()
        TrailWriter(run.trail_path("main")).close()
        for _ in range(1000):
            if store.digests([run.id]) and store.trails.list(run.id):
                return
            waiting.wait(0.02)
    raise AssertionError("never taken in")


def test_a_token_made_on_the_command_line_lets_in(base: Path, call: Call) -> None:
    made = call("token", "create", "cluster", "--scope", "read", "--days", "7")
    secret = made.out.strip()
    assert (made.code, secret[:4]) == (0, "mft_")
    listed = json.loads(call("token", "ls", "--json").out)
    assert "cluster" in call("token", "ls").out
    assert secret not in call("token", "ls").out

    with served("--auth", "tokens") as (_, address):
        runs = "/api/v1/runs"
        assert get(address, runs)[0] == 401
        assert get(address, runs, Authorization=f"Bearer {secret}")[0] == 200
        assert call("token", "revoke", listed[0]["id"]).code == 0
        assert get(address, runs, Authorization=f"Bearer {secret}")[0] == 401
    assert "revoked" in call("token", "ls").out
    assert call("token", "revoke", listed[0]["id"]).code == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "add `--auth tokens`"),
        (["--port", "70000"], "--port is 70000"),
        (["--auth", "maybe"], "--auth is 'maybe'"),
        (["--workers", "0"], "--workers is 0"),
        (["--database", "mysql://x"], "a store is a SQLite file"),
        (["--database", "sqlite:////nowhere/at/all.db"], "its folder exists"),
    ],
)
def test_a_setting_that_cannot_be_is_told_in_one_sentence(
    base: Path, call: Call, options: list[str], said: str
) -> None:
    answer = call("server", *options)
    assert answer.code == 2
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert len(answer.err.strip().splitlines()) == 1


def test_a_wrong_variable_is_told_by_its_name(
    base: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANIFEST_SERVER_GRACE_SECONDS", "soon")
    assert "MANIFEST_SERVER_GRACE_SECONDS is 'soon'" in call("server").err


def test_an_address_that_is_taken_is_told(base: Path, call: Call) -> None:
    with served() as (_, address):
        answer = call("server", "--port", address.rpartition(":")[2])
    assert (answer.code, "in use" in answer.err) == (2, True)


def test_without_its_packages_the_service_says_how_to_get_them(
    base: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "manifest_server.serve", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    answer = call("server")
    assert answer.code == 2
    assert "pip install 'manifest-replay[server]'" in answer.err


def test_a_backup_is_whole_while_others_write(base: Path, record: Record, call: Call) -> None:
    record()
    assert call("ls", "--project", "x").code == 0  # makes the store
    assert call("db", "backup", "copy.db").code == 0

    assert Path("copy.db").stat().st_mode & 0o777 == 0o600
    with sqlite3.connect("copy.db") as copy:
        assert copy.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    copy.close()
    checked = call("db", "check", "--database", "sqlite:///copy.db")
    assert (checked.code, "whole" in checked.out) == (0, True)
    again = call("db", "backup", "copy.db")
    assert (again.code, "there already" in again.err) == (2, True)
    assert call("db", "backup", "nowhere/copy.db").code == 2
    assert sorted(os.listdir()) == [".manifest", "copy.db"]


def test_check_finds_a_damaged_database(base: Path, call: Call) -> None:
    Path("runs.db").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    for url in ("sqlite:///runs.db", "sqlite:///none.db"):
        assert call("db", "check", "--database", url).code == 2
    assert not Path("none.db").exists()


def test_upgrade_makes_a_database_once_and_keeps_it_after(base: Path, call: Call) -> None:
    for _ in range(2):
        assert call("db", "upgrade", "--database", "sqlite:///runs.db").code == 0
    assert call("db", "check", "--database", "sqlite:///runs.db").code == 0
    assert not base.exists()


def test_prune_deletes_what_is_chosen_and_what_nothing_refers_to(
    base: Path, record: Record, call: Call
) -> None:
    url = "sqlite:///runs.db"
    own = {"config": {"lr": 0.1}, "packages": {"numpy": "1"}}
    kept, left = record(name="kept"), record(name="left", sections=own)
    with open_store(url) as store:
        take_in(store, [kept, left], print)
    prune = ("db", "prune", "--database", url)

    assert call(*prune, "--older-than", "1", "--yes").out.startswith("deleted 0 runs")
    assert "would delete 1 run\n" in call(*prune, "name = 'left'", "--dry-run").out
    asked = call(*prune, "name = 'left'")
    assert (asked.code, "Delete 1 run for good?" in asked.err) == (2, True)  # nobody answers
    assert _terms("lr", "numpy") == 2
    assert "deleted 1 run, and" in call(*prune, "name = 'left'", "-y").out
    assert _terms("lr", "numpy") == 0

    with open_store(url) as store:
        assert [run.id for run in store.list_runs()] == [kept.id]
    with closing(sqlite3.connect("runs.db")) as database:
        assert ("delete run",) in database.execute("SELECT action FROM audit").fetchall()


def _terms(*keys: str) -> int:
    statement = f"SELECT count(*) FROM terms WHERE key IN ({', '.join('?' * len(keys))})"
    with closing(sqlite3.connect("runs.db")) as database:
        (count,) = database.execute(statement, keys).fetchone()
    return int(count)


def test_prune_says_what_it_cannot_do(base: Path, record: Record, call: Call) -> None:
    record()
    assert call("db", "prune").code == 2  # there is no database yet
    assert call("ls", "--project", "x").code == 0  # makes it
    assert call("db", "prune").code == 0
    refused = call("db", "prune", "status = 'finished'", "--yes")
    assert (refused.code, "run directories" in refused.err) == (2, True)
    assert call("db", "prune", "--database", "sqlite:///runs.db", "name =").code == 2
    assert not Path("runs.db").exists()
