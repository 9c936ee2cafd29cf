"""Programs of frameworks as their users write them, run in a folder of their own."""

from __future__ import annotations

import json
import os
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


LOOPS = {
    1: (
        "with=accelerate,of=3.10",
        "with=accelerate,seedable=1,workers=1,of=13",
        "with=accelerate,stateful=1,of=12",
        "with=fabric,of=3.10",
    ),
    2: (
        "with=accelerate,of=3.7",
        "with=accelerate,seedable=1,of=7",
        "with=accelerate,stateful=1,of=7",
        "with=fabric,of=3.5",
        "with=lightning,every=1,of=5",
        "with=transformers,of=5",
    ),
}
"""The kinds of loops, by the number of ranks, each of three epochs."""

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="session")
def loops(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int, str], Any]:
    """What each kind of loop computed, by the number of ranks, rank and kind."""
    found: dict[tuple[int, int, str], Any] = {}
    for ranks, kinds in LOOPS.items():
        folder = tmp_path_factory.mktemp("loops")
        launcher = TORCHRUN if ranks == 2 else ()
        subprocess.run(
            [sys.executable, *launcher, str(SCRIPTS / "ranks_resume.py"), *kinds],
            cwd=folder,
            env={**os.environ, "CHECKPOINTS": str(folder), "OMP_NUM_THREADS": "1"},
            check=True,
            capture_output=True,
        )
        for rank in range(ranks):
            computed = json.loads((folder / f"found-{rank}.json").read_text())
            found |= {(ranks, rank, kind): each for kind, each in zip(kinds, computed, strict=True)}
    return found


@pytest.fixture
def loop(request: pytest.FixtureRequest, loops: dict[tuple[int, int, str], Any]) -> Any:
    """What one kind of loop computed, on each rank."""
    ranks, kind = request.param
    return [loops[ranks, rank, kind] for rank in range(ranks)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test the loops of the framework that it is of."""
    if "loop" in metafunc.fixturenames:
        framework = metafunc.module.__name__.rpartition("test_")[2]
        kinds = [
            (ranks, kind)
            for ranks, kinds in LOOPS.items()
            for kind in kinds
            if kind.startswith(f"with={framework}")
        ]
        names = [f"{kind} on {ranks}" for ranks, kind in kinds]
        metafunc.parametrize("loop", kinds, indirect=True, ids=names)
