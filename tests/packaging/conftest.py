"""The wheel, and environments into which it is installed with what it asks for and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePath

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

BroughtBy = Callable[..., set[str]]


@dataclass(frozen=True)
class Environment:
    """An environment of its own; what is installed there lies beside the wheel as links."""

    folder: Path

    @property
    def programs(self) -> Path:
        """Where its `python` and its `manifest` are."""
        return self.folder / "bin"

    def variables(self) -> dict[str, str]:
        """What programs are given where the environment is activated."""
        return {**os.environ, "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}"}

    def call(
        self, *command: str | Path, cwd: Path, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as if the environment was activated."""
        return subprocess.run(
            [self.programs / command[0], *command[1:]],
            cwd=cwd,
            env={**self.variables(), **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    def run(self, *command: str | Path, cwd: Path, **variables: str) -> str:
        """The output of a command that must succeed."""
        ended = self.call(*command, cwd=cwd, **variables)
        assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout


@pytest.fixture(scope="session")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as an index would get it: from the source archive, not from the checkout."""
    out = tmp_path_factory.mktemp("dist")
    # Away from the checkout, where a folder `build` would hide the tool of that name.
    build = (sys.executable, "-m", "build", "--no-isolation", "--outdir", out, checkout)
    ended = subprocess.run(build, cwd=out, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="session", name="brought_by")
def given_brought_by() -> BroughtBy:
    """Ask what requirements install."""
    return brought_by


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Environment]:
    """Install the wheel with some of its extras, and other packages, and what those need."""

    def install(*others: str, extras: str = "") -> Environment:
        environment = Environment(tmp_path_factory.mktemp("installed"))
        venv.create(environment.folder, with_pip=False, symlinks=True)
        python = environment.programs / "python"
        pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
        subprocess.run([*pip, "--no-deps", "--no-index", "--no-compile", wheel], check=True)
        (site,) = environment.folder.glob("lib/python*/site-packages")
        wanted = [Requirement(f"manifest-replay[{extras}]"), *map(Requirement, others)]
        path = [str(site), *sys.path]
        for name in brought_by(wanted, path) - {"manifest-replay"}:
            _link(_found(name, path), site)
        return environment

    return install


def brought_by(wanted: Iterable[Requirement], path: Sequence[str] = sys.path) -> set[str]:
    """The names of everything that these requirements install, directly or not."""
    found: set[tuple[str, str]] = set()
    waiting = [(one.name, extra) for one in wanted for extra in ("", *one.extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        for needed in map(Requirement, _found(name, path).requires or []):
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(needed.name), each) for each in ("", *needed.extras)]
    return {canonicalize_name(name) for name, _ in found}


def _found(name: str, path: Sequence[str]) -> Distribution:
    return next(iter(distributions(name=name, path=list(path))))


def _link(distribution: Distribution, site: Path) -> None:
    """Put what is installed here into another folder of packages, too."""
    home = Path(str(distribution.locate_file("")))
    for place in _places(distribution, home):
        link = site / place
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(home / place)


def _places(distribution: Distribution, home: Path) -> Iterator[PurePath]:
    """Its packages and its metadata as folders, and what lies beside those."""
    seen = set()
    for file in distribution.files or []:
        if ".." in file.parts:
            continue  # its programs
        above = reversed(file.parents[:-1])
        place = next((folder for folder in above if _is_whole(home / folder)), PurePath(file))
        if place not in seen:
            seen.add(place)
            yield place


def _is_whole(folder: Path) -> bool:
    """Whether a folder belongs to one distribution, as those without this file may not."""
    return folder.suffix in (".dist-info", ".libs") or (folder / "__init__.py").exists()
