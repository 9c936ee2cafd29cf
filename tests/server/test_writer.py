"""The process that commits for a service: as good as a thread, and the service outlives it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import make_url

from manifest.models import Manifest
from manifest_migrations.upgrade import open_store
from manifest_server.app import create_app
from manifest_server.database import sqlite_url
from manifest_server.settings import ServerSettings

MakeManifest = Callable[..., Manifest]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread commits")

_SECONDS = 60


class Service(NamedTuple):
    """A service in a process of its own, and the process that commits for it."""

    process: subprocess.Popen[bytes]
    address: str
    log: Path

    @property
    def writer(self) -> int:
        assert self.ask("GET", "")[0] == 200  # it is there before any answer
        (found,) = children(self.process.pid)
        return found

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        connection = HTTPConnection(self.address, timeout=_SECONDS)
        with closing(connection):
            connection.request(method, f"/api/v1/runs{path}", body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def put(self, run: Manifest) -> int:
        return self.ask("PUT", f"/{run.id}", as_sent(run))[0]

    def wait_for_line(self, text: str) -> dict[str, Any]:
        for _ in range(_SECONDS * 100):
            for line in self.log.read_text().splitlines():
                if text in line:
                    said: dict[str, Any] = json.loads(line)
                    return said
            time.sleep(0.01)
        raise AssertionError(f"never said {text!r}: {self.log.read_text()}")


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            before, _, after = stat.read_text().rpartition(")")
        except OSError:
            continue
        if int(after.split()[1]) == pid:
            found.append(int(before.partition(" ")[0]))
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for_end(pid: int) -> None:
    end = time.monotonic() + _SECONDS
    while is_alive(pid):
        assert time.monotonic() < end
        time.sleep(0.005)


def as_sent(run: Manifest) -> bytes:
    return run.model_dump_json(by_alias=True, exclude_unset=True).encode()


@contextmanager
def serving(folder: Path, url: str) -> Iterator[Service]:
    log = folder / "log"
    variables = {"MANIFEST_SERVER_DATABASE_URL": url, "MANIFEST_SERVER_PORT": "0"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(Path(sysconfig.get_path("scripts"), "manifest")), "server"],
            cwd=folder,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=file,
            start_new_session=True,
        )
    assert process.stdout is not None
    try:
        address = urlsplit(process.stdout.readline().decode().split()[-1]).netloc
        yield Service(process, address, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_SECONDS)
        process.stdout.close()


@pytest.fixture
def service(tmp_path: Path, store_url: str) -> Iterator[Service]:
    """A service of an empty store, on each kind of database in turn."""
    with serving(tmp_path, store_url) as found:
        yield found


@pytest.fixture
def sqlite_service(tmp_path: Path, sqlite_store_url: str) -> Iterator[Service]:
    """One whose database the test can hold."""
    with serving(tmp_path, sqlite_store_url) as found:
        yield found


@contextmanager
def held(url: str) -> Iterator[None]:
    """A database that nobody else can write."""
    path = make_url(url).database or ""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def test_answers_are_those_of_a_thread(
    service: Service, tmp_path: Path, make_manifest: MakeManifest
) -> None:
    run, other, lacking = (make_manifest(sections={"config": {"lr": lr}}) for lr in (1, 2, 3))
    short = json.loads(as_sent(lacking))
    del short["sections"]["config"]
    changed = make_manifest(id=run.id, project="other")
    wrong = make_manifest().model_copy(update={"project": "changed"})
    damaged = make_manifest(is_sealed=False)
    tags = json.dumps({"tags": {"team": "nlp"}}).encode()
    first = {"If-Match": '"0"'}
    requests = [
        ("PUT", f"/{run.id}", as_sent(run), {}),
        ("PUT", f"/{run.id}", as_sent(run), {}),
        ("PUT", f"/{run.id}", as_sent(changed), {}),
        ("PUT", f"/{run.id}", as_sent(other), {}),
        ("PUT", f"/{wrong.id}", as_sent(wrong), {}),
        ("PUT", f"/{lacking.id}", json.dumps(short).encode(), {}),
        ("PUT", f"/{damaged.id}", as_sent(damaged).replace(b'"digits"', b'"\\ud800"'), {}),
        ("PUT", f"/{run.id}", b'{"id": 1}', {}),
        ("PUT", f"/{run.id}", b"no manifest", {}),
        ("PUT", f"/{run.id}/annotations", tags, first),
        ("PUT", f"/{run.id}/annotations", tags, first),
        ("PUT", f"/{other.id}/annotations", tags, first),
        ("PUT", f"/{run.id}/annotations", b"[]", {"If-Match": '"1"'}),
        ("GET", "?filter=tags.team%20%3D%20%22nlp%22", b"", {}),
    ]
    address = sqlite_url(tmp_path / "other.db")
    open_store(address).close()
    app = create_app(ServerSettings(database_url=address.render_as_string()))
    with TestClient(app, base_url="http://localhost") as client:
        for method, path, body, headers in requests:
            expected = client.request(method, f"/api/v1/runs{path}", content=body, headers=headers)
            found = service.ask(method, path, body, headers)
            assert found[0] == expected.status_code
            assert _timeless(found[1]) == _timeless(expected.json())
    assert is_alive(service.writer)


def _timeless(said: Any) -> Any:
    return {key: each for key, each in said.items() if key != "updated_at"}


def test_whatever_it_had_when_it_was_killed_is_kept(
    sqlite_service: Service, sqlite_store_url: str, make_manifest: MakeManifest
) -> None:
    service = sqlite_service
    before, after = make_manifest(), make_manifest()
    runs = [make_manifest() for _ in range(5)]
    assert service.put(before) == 200
    writer = service.writer
    statuses: dict[str, int] = {}
    threads = [
        threading.Thread(target=lambda run=run: statuses.update({run.id: service.put(run)}))
        for run in runs
    ]
    with held(sqlite_store_url):
        for thread in threads:
            thread.start()
        time.sleep(0.2)  # by then it has some of them; the test holds wherever they are
        os.kill(writer, signal.SIGKILL)
    for thread in threads:
        thread.join()
    assert statuses == {run.id: 200 for run in runs}
    assert service.put(after) == 200
    said = service.wait_for_line("the process that writes has ended")
    assert said["level"] == "error"
    assert {each["id"] for each in service.ask("GET", "")[1]["runs"]} == {
        each.id for each in (before, *runs, after)
    }


def test_it_ends_with_the_service_that_is_killed(
    sqlite_service: Service, make_manifest: MakeManifest
) -> None:
    assert sqlite_service.put(make_manifest()) == 200
    writer = sqlite_service.writer
    sqlite_service.process.kill()
    wait_for_end(writer)


def test_a_signal_to_both_leaves_nobody_without_an_answer(
    sqlite_service: Service, sqlite_store_url: str, make_manifest: MakeManifest
) -> None:
    service = sqlite_service
    writer = service.writer
    run = make_manifest()
    found: list[int] = []
    sender = threading.Thread(target=lambda: found.append(service.put(run)))
    with held(sqlite_store_url):
        sender.start()
        time.sleep(0.2)  # a request that has not come by then is refused, and the test fails
        os.killpg(service.process.pid, signal.SIGINT)  # as a terminal does
        service.wait_for_line("Shutting down")
    sender.join()
    assert found == [200]
    assert service.process.wait(_SECONDS) == 0
    assert not is_alive(writer)


def test_it_holds_nothing_of_the_service_open(sqlite_service: Service) -> None:
    assert opened(sqlite_service.writer) & opened(sqlite_service.process.pid) == set()


def opened(pid: int) -> set[str]:
    """Sockets, pipes and the like of a process, but for its standard streams."""
    links = {int(link.name): os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
    return {
        to for number, to in links.items() if number > 2 and to.startswith(("socket:", "pipe:"))
    }


def test_what_fails_there_is_told_and_tried_again(tmp_path: Path, sqlite_store_url: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(_FAULTY)
    ran = subprocess.run(
        [sys.executable, script, sqlite_store_url], capture_output=True, text=True, check=False
    )
    assert ran.stdout.splitlines() == [
        *("StoreUnusable", "yet False"),
        *("WriterFault", "zero True"),
        "[Kept(id='a', digest='b')]",
    ], ran


_FAULTY = """
import sys
from manifest.errors import StoreUnusable
from manifest_server.keeping import Kept, keep_runs
from manifest_server.sqlstore import SqlStore
from manifest_server.writer import Writer

class Faulty(SqlStore):
    def put_each(self, given):
        1 / 0

tried = 0

def open_store():
    global tried
    tried += 1
    if tried == 1:
        raise StoreUnusable("not yet")
    return Faulty.open(sys.argv[1])

def read(store):
    return None

writer = Writer.start(open_store)
with SqlStore.open(sys.argv[1]) as store:
    for _ in range(2):
        try:
            writer.runs.keep(store, [read])
        except Exception as error:
            print(type(error).__name__)
            print(str(error).split()[-1], "in put_each" in str(error))
    writer.close()
    writer.runs._keep = lambda store, sent: [Kept("a", "b")]
    print(writer.runs.keep(store, [read]))
"""


@pytest.mark.parametrize("hindrance", ["os.fork = fail", "Thread(target=over.wait).start()"])
def test_where_none_can_be_forked_there_is_none(tmp_path: Path, hindrance: str) -> None:
    script = (
        "import os\n"
        "from threading import Event, Thread\n"
        "from manifest_server.writer import Writer\n"
        "over = Event()\n"
        "def fail():\n"
        "    raise BlockingIOError(11, 'Resource temporarily unavailable')\n"
        f"{hindrance}\n"
        "print(Writer.start(print))\n"
        "over.set()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert ran.stdout == "None\n"
