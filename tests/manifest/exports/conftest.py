"""One real run in a repository with changes, and what a stranger makes of its manifest."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from manifest.launching import launch
from manifest.models import Manifest
from manifest.recorded import Recorded, read
from manifest.rundir import RunDirectory

PROGRAM = """
import json, os, sys
from parts import word
seen = {"argv": sys.argv[1:], "word": word, "config": open("../config.json").read()}
seen["variables"] = {n: os.environ.get(n) for n in ("OMP_NUM_THREADS", "PYTHONHASHSEED", "FLAVOUR")}
seen["files"] = sorted(f for f in os.listdir("..") if not f.startswith("."))
os.environ.get("API_TOKEN")
print(json.dumps(seen))
open("../model.bin", "wb").write(b"weights")
"""
SECRET = "hunter2-9f8e7d6c5b4a"


@dataclass(frozen=True)
class Exported:
    """A run that was recorded once for all of these tests."""

    run: RunDirectory
    project: Path

    @property
    def manifest(self) -> Manifest:
        return Manifest.model_validate(self.run.document())

    @property
    def recorded(self) -> Recorded:
        return read(self.manifest)

    def altered(self, **sections: dict[str, Any]) -> Recorded:
        """The run as someone else's manifest tells it; what is None there is taken away."""
        manifest = self.manifest
        changed = {**manifest.sections}
        for name, values in sections.items():
            merged = {**changed.get(name, {}), **values}
            changed[name] = {k: v for k, v in merged.items() if v is not None}
        return read(manifest.model_copy(update={"sections": changed}))


@pytest.fixture(scope="package")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A run of a program in a folder of a repository, with a change and an untracked file."""
    project = tmp_path_factory.mktemp("exported") / "project"
    (project / "src").mkdir(parents=True)

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
        subprocess.run(["git", "-C", project, *who, *arguments], capture_output=True, check=True)

    (project / "src" / "train.py").write_text(PROGRAM)
    (project / "src" / "parts.py").write_text("word = 'committed'\n")
    (project / "config.json").write_text("1")
    (project / "unused.txt").write_text("committed\n")
    git("init", "--quiet")
    git("add", "-A")
    git("commit", "--quiet", "-m", "first")
    git("remote", "add", "origin", str(project))
    (project / "src" / "parts.py").write_text("word = 'changed'\n")
    (project / "unused.txt").write_text("changed\n")
    (project / "new it's.txt").write_text("untracked\n")
    here, kept = Path.cwd(), dict(os.environ)
    os.chdir(project / "src")
    os.environ |= {"OMP_NUM_THREADS": "3", "API_TOKEN": SECRET, "FLAVOUR": "vanilla"}
    command = [sys.executable, "train.py", "--lr", "0.1 $HOME", "--password", SECRET]
    try:
        launched = launch(command, base=project / ".manifest")
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ |= kept
    assert launched.exit_code == 0
    launched.run.seal()
    return Exported(launched.run, project)


@pytest.fixture
def sh(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script in an empty folder, with an environment that is there already."""

    def run(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "repeat.sh"
        path.write_bytes(os.fsencode(script))
        environ = {**os.environ, "ENVIRONMENT": sys.prefix, **variables}
        return subprocess.run(
            ["sh", str(path), str(tmp_path / "again"), *arguments],
            env=environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return run
