"""Runs a second of the service, beside `mlflow server`: `python benchmarks/tracking.py`.

Both keep runs of 40 parameters and 10 tags in the same kind of database, each as it is started by
default, and are asked by the same client over as many connections. They take turns.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from manifest.canonical import canonical_bytes
from manifest.sealing import seal_document
from manifest_migrations.upgrade import open_store
from recording import CACHE, FOREIGN, MLFLOW, Tool, python_of
from storing import cpu_of_group, documents, postgresql, serving

_PARAMETERS: Final = 40
_TAGS: Final = 10
_START_SECONDS: Final = 120
_MLFLOW = Tool("MLflow", "", "mlflow-server")

Send = Callable[[str, str, object, Mapping[str, str]], Any]
"""By method, path, body and headers; gives what is answered."""


class Way(NamedTuple):
    """One way to have a run kept."""

    name: str
    share: int
    """Of `--runs`, one in so many: the slow need not be asked as often."""
    prepare: Callable[[], Any]
    """What it sends for a run, made before the clock starts."""
    keep: Callable[[Send, Any], object]


def main() -> None:
    """Measure all, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--runs", type=int, default=2000, help="of ours, in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=CACHE, help="default: %(default)s")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    python = python_of(_MLFLOW, options.cache.absolute())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(postgresql(folder))
        urls = {"SQLite": f"sqlite:///{folder}/store.db", **({"PostgreSQL": url} if url else {})}
        print(f"runs a second with {_PARAMETERS} parameters and {_TAGS} tags")
        for name, address in urls.items():
            open_store(address).close()
            measure(name, address, folder, python, options)


def measure(
    name: str, url: str, folder: Path, python: Path | None, options: argparse.Namespace
) -> None:
    """Ask both in turns, and print the best round of each way."""
    best: dict[str, tuple[float, float]] = {}
    with ExitStack() as stack:
        asker = stack.enter_context(ProcessPoolExecutor(1))
        ways = [(way, *stack.enter_context(serving(url))) for way in OURS]
        if python is not None:
            there = other_database(name, url, folder)
            ways.append((THEIRS, *stack.enter_context(serving_mlflow(python, there, folder))))
        for turn in range(options.rounds + 1):
            for way, port, pid in ways:
                count = max(options.connections * 2, options.runs // way.share)
                before = cpu_of_group(pid)
                rate = asker.submit(ask_all, port, way.name, count, options.connections).result()
                cpu = (cpu_of_group(pid) - before) / count * 1e3
                if turn:  # the first warms up
                    best[way.name] = max(best.get(way.name, (0, 0)), (rate, cpu))
    peer = best.get(THEIRS.name)
    for what, (rate, cpu) in best.items():
        times = (
            f"{rate / peer[0]:6.1f} × as many; {peer[1] / cpu:5.1f} × by its time" if peer else ""
        )
        print(f"  {name:<11} {what:<42}{rate:>7,.0f}/s, server {cpu:6.2f} ms {times}", flush=True)


def ask_all(port: int, name: str, count: int, connections: int) -> float:
    """Have so many runs kept; gives how many a second."""
    way = next(way for way in (*OURS, THEIRS) if way.name == name)
    prepared = [way.prepare() for _ in range(count)]

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

        def send(method: str, path: str, body: object, headers: Mapping[str, str]) -> Any:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            told = {"Content-Type": "application/json", **headers}
            connection.request(method, path, data, told)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status >= 300:
                raise AssertionError(f"{answer.status}: {content[:500]!r}")
            return json.loads(content) if content else None

        with closing(connection):
            while True:
                try:
                    run = prepared.pop()
                except IndexError:
                    return
                way.keep(send, run)

    with ThreadPoolExecutor(connections) as pool:
        began = time.perf_counter()
        for asking in [pool.submit(ask) for _ in range(connections)]:
            asking.result()
        return count / (time.perf_counter() - began)


def values(count: int) -> dict[str, str]:
    """Some keys, each with one of a few values but for one that is new every time."""
    found = {f"key_{number}": str(random.randrange(8)) for number in range(count)}
    return {**found, "key_0": str(random.random())}


def manifest_with(config: Mapping[str, str], *, is_alone: bool = False) -> tuple[str, bytes]:
    """The id and the bytes of a manifest of 18 KB, as recording sends it, or of these alone."""
    run_id, body = documents(1)[0]
    document = json.loads(body)
    others = {} if is_alone else document["sections"]
    document["sections"] = {**others, "config": config}
    del document["digest"], document["digests"]
    seal_document(document)
    return run_id, canonical_bytes(document)


def with_all_values() -> tuple[str, bytes]:
    """A manifest whose configuration has the tags too."""
    tags = {f"tag_{key}": value for key, value in values(_TAGS).items()}
    return manifest_with({**values(_PARAMETERS), **tags})


def values_alone() -> tuple[str, bytes]:
    """A manifest of no more than MLflow is given."""
    tags = {f"tag_{key}": value for key, value in values(_TAGS).items()}
    return manifest_with({**values(_PARAMETERS), **tags}, is_alone=True)


def with_tags_apart() -> tuple[str, bytes, object]:
    """A manifest, and the tags that people add to it afterwards."""
    return *manifest_with(values(_PARAMETERS)), {"tags": values(_TAGS)}


def for_mlflow() -> tuple[dict[str, object], list[dict[str, str]]]:
    """A new run with its tags, and its parameters."""
    tags, parameters = (
        [{"key": key, "value": value} for key, value in values(count).items()]
        for count in (_TAGS, _PARAMETERS)
    )
    return {"experiment_id": "0", "start_time": 1_800_000_000_000, "tags": tags}, parameters


def keep_manifest(send: Send, run: Any) -> None:
    """One request."""
    run_id, body = run
    send("PUT", f"/api/v1/runs/{run_id}", body, {})


def keep_with_tags(send: Send, run: Any) -> None:
    """Two, each of which is durable when it is answered."""
    run_id, body, tags = run
    send("PUT", f"/api/v1/runs/{run_id}", body, {})
    send("PUT", f"/api/v1/runs/{run_id}/annotations", tags, {"If-Match": '"0"'})


def keep_in_mlflow(send: Send, run: Any) -> None:
    """Two, as many as it can be done with."""
    new, parameters = run
    made = send("POST", "/api/2.0/mlflow/runs/create", new, {})
    batch = {"run_id": made["run"]["info"]["run_id"], "params": parameters}
    send("POST", "/api/2.0/mlflow/runs/log-batch", batch, {})


OURS: Final = (
    Way("a manifest, tags among its values", 1, with_all_values, keep_manifest),
    Way("a manifest of these values alone", 1, values_alone, keep_manifest),
    Way("a manifest, then its tags: two requests", 2, with_tags_apart, keep_with_tags),
)
THEIRS: Final = Way("MLflow: a run with tags, then parameters", 8, for_mlflow, keep_in_mlflow)


def other_database(name: str, url: str, folder: Path) -> str:
    """A database of the same kind, on the same server."""
    if name == "SQLite":
        return f"sqlite:///{folder}/mlflow.db"
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE mlflow")
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    there = f"{scheme}://{place.rpartition('/')[0]}/mlflow"
    return f"{there}?{query}" if query else there


@contextmanager
def serving_mlflow(python: Path, url: str, folder: Path) -> Iterator[tuple[int, int]]:
    """Start `mlflow server` as it is by default; gives its port and its process id."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    kept = {key: text for key, text in os.environ.items() if not key.startswith(FOREIGN)}
    command = [str(python), "-m", "mlflow", "server", "--backend-store-uri", url]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--port", str(port)]
    with (
        (folder / "mlflow.log").open("ab") as log,
        subprocess.Popen(
            command,
            cwd=folder,
            env={**kept, **MLFLOW, "PATH": f"{python.parent}:{kept.get('PATH', '')}"},
            stdout=log,
            stderr=log,
            start_new_session=True,  # it starts workers, which end with it as a group
        ) as server,
    ):
        try:
            wait_for(port, server)
            yield port, server.pid
        finally:
            os.killpg(server.pid, signal.SIGKILL)


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    """Wait until a server answers."""
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.5)
        finally:
            connection.close()
    raise RuntimeError("`mlflow server` did not start; see the log beside its database")


if __name__ == "__main__":
    main()
