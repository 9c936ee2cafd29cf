"""Two services behind a pooler that hands out PostgreSQL's connections by transaction."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
from sqlalchemy import make_url

from manifest.models import Manifest
from manifest.segments import SEGMENT_STEPS
from manifest.streams import ROW_SIZE, STREAMS
from manifest_migrations.upgrade import upgrade
from manifest_server.sqlstore import SqlStore

MakeManifest = Callable[..., Manifest]
Serving = Any  # the class is that of the fixture

_CONNECTIONS = 3
_SETTINGS = """\
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listening}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = 200
"""


@pytest.fixture
def pooled_url(postgresql_url: str, tmp_path: Path) -> Iterator[str]:
    """The address of an up-to-date database through a pooler with few connections."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed; `make test` does that on Debian, for root")
    upgrade(postgresql_url)  # takes a lock of a session, which no such pooler passes on
    with _pooling(program, postgresql_url, tmp_path) as url:
        yield url


@contextmanager
def _pooling(program: str, url: str, folder: Path) -> Iterator[str]:
    direct = make_url(url)
    folder_of_socket = str(direct.query["host"])
    with socket.create_server(("127.0.0.1", 0)) as free:
        listening = free.getsockname()[1]
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        _SETTINGS.format(
            host=folder_of_socket,
            port=direct.port or 5432,
            user=direct.username,
            listening=listening,
            connections=_CONNECTIONS,
        )
    )
    command = [program, str(settings)]
    if os.getuid() == 0:  # which it refuses to be; only PostgreSQL's own account reaches the socket
        command += ["-u", Path(folder_of_socket).owner()]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as pooler:
        pooled = direct.set(host="127.0.0.1", port=listening, query={}, password="none")
        text = pooled.render_as_string(hide_password=False)
        _wait_for(text)
        yield text
        pooler.terminate()


def _wait_for(url: str) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError:
            assert time.monotonic() < end
            time.sleep(0.05)
        else:
            return


def test_many_clients_of_two_services_share_few_connections(
    pooled_url: str, tmp_path: Path, serve: Callable[..., Serving], make_manifest: MakeManifest
) -> None:
    runs = [make_manifest(sections={"config": {"lr": number}}) for number in range(60)]
    with ExitStack() as stack, ThreadPoolExecutor(16) as pool:
        urls = [stack.enter_context(serve(tmp_path, pooled_url)) for _ in range(2)]
        clients = [
            stack.enter_context(httpx2.Client(base_url=f"{url}/api/v1/", timeout=30))
            for url in urls
        ]

        def put_and_find(number: int) -> list[str]:
            run, client = runs[number], clients[number % 2]
            body = run.model_dump_json(by_alias=True, exclude_unset=True)
            assert client.put(f"runs/{run.id}", content=body).status_code == 200
            # By the other one, over and over: a statement that was prepared would fail by now.
            other = clients[1 - number % 2]
            found = other.get("runs", params={"filter": f"config.lr = {number}"}).json()
            assert other.get(f"runs/{run.id}").json()["digest"] == run.digest
            return [each["id"] for each in found["runs"]]

        assert list(pool.map(put_and_find, range(60))) == [[run.id] for run in runs]
        with psycopg.connect(pooled_url) as connection:
            statement = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            found = connection.execute(statement).fetchone()
            assert found is not None
            assert found[0] <= _CONNECTIONS


def test_rows_of_trails_are_copied_through_it(pooled_url: str, make_manifest: MakeManifest) -> None:
    header = {"schema": 1, "algorithm": "a", "streams": STREAMS, "row": ROW_SIZE}
    start = json.dumps(header).encode() + b"\n"
    runs = [make_manifest() for _ in range(12)]
    bodies = [os.urandom(3 * SEGMENT_STEPS * ROW_SIZE) for _ in runs]
    with SqlStore.open(pooled_url) as store, ThreadPoolExecutor(6) as pool:
        store.put_runs((run, None) for run in runs)

        def put_and_get(number: int) -> bytes:
            run_id = runs[number].id
            store.trails.put_rows(run_id, "main", start + bodies[number], start=0)
            return b"".join(store.trails.rows(run_id, store.trails.find(run_id, "main")))

        assert list(pool.map(put_and_get, range(12))) == bodies
