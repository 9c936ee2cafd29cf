"""A folder of a user with runs in it, the command line, and a service."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from manifest.canonical import Json
from manifest.journal import Journal
from manifest.models import Scope
from manifest.origin import RUN, Origin, write_origin
from manifest.rundir import RunDirectory
from manifest_client.cli.main import main
from manifest_migrations.upgrade import open_store
from manifest_server.database import sqlite_url

Record = Callable[..., RunDirectory]

SERVE = """
from manifest_server.serve import serve
from manifest_server.settings import load_settings
serve(load_settings(), lambda address: None)
"""


class Answer(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str


Call = Callable[..., Answer]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where runs are kept in an empty folder, which is entered."""
    folder = tmp_path / "digits"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder / ".manifest"


@pytest.fixture
def record(base: Path) -> Record:
    """Write a run directory as a recorded program does; each is newer than the one before."""
    numbers = count(1)

    def write(
        *,
        command: Sequence[str] = ("python", "train.py"),
        name: str | None = None,
        project: str | None = None,
        replay_of: str | None = None,
        sections: dict[str, dict[str, Json]] | None = None,
        notes: Sequence[str] = (),
        exit_code: int = 0,
        is_over: bool = True,
    ) -> RunDirectory:
        run = RunDirectory.create(base, f"0199c3f2-{next(numbers):04x}-7000-8000-000000000000")
        _, journal = run.claim("run")
        origin = Origin(
            mode=RUN,
            command=command,
            executable="python",
            folder=Path.cwd(),
            entropy=bytes(32),
            hash_seed="0",
            name=name,
            project=project,
            replay_of=replay_of,
        )
        write_origin(journal, run, origin)
        _write_facts(journal, sections or {}, notes)
        if is_over:
            journal.append("exit", code=exit_code, signal=None)
            run.write_manifest()
        journal.close()
        return run

    return write


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Call `manifest` with arguments."""

    def answer(*arguments: str) -> Answer:
        monkeypatch.setattr("sys.argv", ["manifest", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ending:
            main()
        return Answer(int(ending.value.code or 0), *capsys.readouterr())

    return answer


def _write_facts(
    journal: Journal, sections: dict[str, dict[str, Json]], notes: Sequence[str]
) -> None:
    for section, values in sections.items():
        journal.append("section", section=section, values=values)
    for note in notes:
        journal.append("note", where="probe", what=note)


class Service:
    """A service of its own process, which can be killed and started again."""

    def __init__(self, folder: Path, *, auth: str = "none") -> None:
        self.database = sqlite_url(folder / "service.db").render_as_string()
        open_store(self.database).close()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._auth = auth
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environ = {
            **os.environ,
            "MANIFEST_SERVER_DATABASE_URL": self.database,
            "MANIFEST_SERVER_PORT": str(self.port),
            "MANIFEST_SERVER_AUTH": self._auth,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < deadline, "the service does not start"
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def empty(self) -> None:
        """Forget every run: in each test, runs have the same ids."""
        with open_store(self.database) as store:
            while runs := store.list_runs(limit=500):
                for run in runs:
                    store.delete_run(run.id)

    def token(self, *scopes: Scope, days: int = 1) -> str:
        with open_store(self.database) as store:
            _, secret = store.create_token(name="ada", scopes=scopes, lifetime=timedelta(days=days))
        return secret

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.url}/healthz") as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


@pytest.fixture
def make_service() -> Callable[[Path], Service]:
    """A function that makes a service of the test's own; it is not started yet."""
    return Service


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that asks for no token; without runs after `empty()`."""
    service = Service(tmp_path_factory.mktemp("service"))
    service.start()
    yield service
    service.stop()


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that asks for tokens."""
    service = Service(tmp_path_factory.mktemp("guarded"), auth="tokens")
    service.start()
    yield service
    service.stop()
