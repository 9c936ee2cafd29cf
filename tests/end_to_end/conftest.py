"""A project folder of a user, and ways to run programs in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from manifest.launching import Launched, launch
from manifest.rundir import RunDirectory

SCRIPTS = Path(__file__).parent / "scripts"

RunScript = Callable[..., Launched]
Plainly = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder outside any repository, entered."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def base(project: Path) -> Path:
    """Where the runs of the project are kept."""
    return project / ".manifest"


@pytest.fixture(scope="session")
def at_work(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], AbstractContextManager[Path]]:
    """Make a folder and work in it for a while, for runs that several tests look at."""

    @contextmanager
    def work(name: str) -> Iterator[Path]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
            folder = tmp_path_factory.mktemp(name)
            patch.chdir(folder)
            patch.setenv("OMP_NUM_THREADS", "1")  # programs that want more say so
            yield folder

    return work


@pytest.fixture
def script(project: Path) -> Callable[[str, str], Path]:
    """Write a script into the project, and beside it the optimizer that it imports from there."""

    def write(name: str, source: str) -> Path:
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        if "from descent import" in source:
            shutil.copy(SCRIPTS / "descent.py", project)
        return path

    return write


@pytest.fixture
def copied(script: Callable[[str, str], Path]) -> Callable[[str], Path]:
    """Copy one of the scripts of these tests into the project."""

    def copy(name: str) -> Path:
        return script(name, (SCRIPTS / name).read_text())

    return copy


@pytest.fixture
def recorded(base: Path) -> RunScript:
    """Run Python under Manifest, as `manifest run -- python …` does."""

    def run(*arguments: str, **options: object) -> Launched:
        return launch([sys.executable, *arguments], base=base, **options)  # type: ignore[arg-type]

    return run


@pytest.fixture
def plainly(project: Path) -> Plainly:
    """Run Python without Manifest."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, check=False
        )

    return run


@dataclass(frozen=True)
class Ended:
    """What a program left behind, as its user sees it."""

    out: str
    err: str
    code: int


@dataclass(frozen=True)
class Pair:
    alone: Ended
    recorded: Ended
    run: RunDirectory


@pytest.fixture
def both(
    base: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Pair]:
    """Run Python alone, then under Manifest, with the same arguments and standard input."""
    # Else the order of sets would differ between any two runs.
    monkeypatch.setenv("PYTHONHASHSEED", "0")

    def run(*arguments: str, stdin: bytes = b"") -> Pair:
        alone = subprocess.run(
            [sys.executable, *arguments],
            input=stdin,
            capture_output=True,
            env=dict(os.environ),  # else what C code has put there since is inherited too
            check=False,
        )
        code = alone.returncode if alone.returncode >= 0 else 128 - alone.returncode
        capfd.readouterr()
        with standard_input(stdin):
            launched = launch([sys.executable, *arguments], base=base)
        captured = capfd.readouterr()
        return Pair(
            Ended(alone.stdout.decode(), alone.stderr.decode(), code),
            Ended(captured.out, captured.err, launched.exit_code),
            launched.run,
        )

    return run


@pytest.fixture(name="standard_input")
def given_standard_input() -> Callable[[bytes], AbstractContextManager[None]]:
    """Let programs that are started meanwhile read what is given."""
    return standard_input


@contextmanager
def standard_input(content: bytes) -> Iterator[None]:
    """Let programs that are started now read `content`."""
    reading, writing = os.pipe()
    os.write(writing, content)
    os.close(writing)
    kept = os.dup(0)
    os.dup2(reading, 0)
    try:
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(reading)


@pytest.fixture
def given() -> Iterator[Callable[[bytes], None]]:
    """Let programs that are started next read these bytes, and then the end."""
    with ExitStack() as stack:
        yield lambda content: stack.enter_context(standard_input(content))
