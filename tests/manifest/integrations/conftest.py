"""Programs of frameworks as their users write them, run in a folder of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parent / "scripts"

Program = Callable[..., Any]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """Run one of the programs of these tests; what it prints last, which is JSON."""

    def run(name: str, *arguments: str, launcher: tuple[str, ...] = ()) -> Any:
        done = subprocess.run(
            [sys.executable, *launcher, str(SCRIPTS / name), *arguments],
            cwd=tmp_path_factory.mktemp("project"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run
