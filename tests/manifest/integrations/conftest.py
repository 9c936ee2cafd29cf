"""Programs of frameworks as their users write them, run in a folder of their own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parent / "scripts"

Program = Callable[..., Any]


TWICE = """\
import runpy, sys
checkpoint = sys.argv.pop()
runpy.run_path("train.py")
sys.argv.append(checkpoint)
runpy.run_path("train.py")
"""


@pytest.fixture
def twice() -> Callable[[str], list[str]]:
    """Run a program, then again with an argument, the checkpoint that it saved; what it prints."""

    def run(checkpoint: str) -> list[str]:
        command = [sys.executable, "-c", TWICE, checkpoint]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [line for line in done.stdout.splitlines() if line.startswith("[")]

    return run


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


@pytest.fixture
def lines_of(checkout: Path) -> Callable[[str, str], str]:
    """The first lines of Python that a page of the guide has below a heading."""

    def lines(page: str, heading: str) -> str:
        text = (checkout / "docs" / page).read_text(encoding="utf-8")
        (found,) = re.findall(rf"## {heading}\n.*?```python\n(.*?)```", text, re.DOTALL)
        return str(found)

    return lines


@pytest.fixture
def continued(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    twice: Callable[[str], list[str]],
    lines_of: Callable[[str, str], str],
) -> Callable[..., None]:
    """Check that a loop of eight batches goes on behind the third, by the lines of the guide."""

    def check(heading: str, given: str, loop: str, *, checkpoint: str) -> None:
        monkeypatch.chdir(tmp_path)
        Path("train.py").write_text(given + lines_of("checkpoints.md", heading) + loop)
        whole, resumed = map(json.loads, twice(checkpoint))
        assert len(whole) == 8
        assert resumed == whole[3:]

    return check
