"""A project folder of a user, and ways to run programs in it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from manifest.launching import Launched, launch

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


@pytest.fixture
def script(project: Path) -> Callable[[str, str], Path]:
    """Write a script into the project."""

    def write(name: str, source: str) -> Path:
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        return path

    return write


@pytest.fixture
def copied(project: Path) -> Callable[[str], Path]:
    """Copy one of the scripts of these tests into the project."""

    def copy(name: str) -> Path:
        return Path(shutil.copy(SCRIPTS / name, project / name))

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
