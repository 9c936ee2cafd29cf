"""Training scripts of many shapes, as users write them: what a replay of each is called.

Most of them share a run, as children of a program that has imported PyTorch.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from manifest import ranks
from manifest.comparing import compare_trails
from manifest.launching import launch
from manifest.models import Manifest, Outcome, TrailComparison, Verdict
from manifest.replaying import replay
from manifest.rundir import RunDirectory

SCRIPTS = Path(__file__).parent / "scripts"
CONFIG = '{"rate": 0.1, "steps": 6}'

BARE = frozenset({"rng", "loss", "grad", "param"})
"""The streams of a training whose batches no loader of PyTorch delivers."""
LOADED = BARE | {"batch"}


@dataclass(frozen=True)
class Shape:
    """A script, and what is true of a replay of it."""

    script: str
    steps: int
    """Steps that both runs made, in the process that made most."""
    streams: frozenset[str] = BARE
    outcome: Outcome = "identical"
    why: str = ""
    """Where it is not identical: what the verdict names."""
    given: bytes = b""
    """What comes through standard input when it is recorded; a replay finds nothing there."""
    is_recorded_again: bool = False
    """Whether a second run is the one that is replayed, with what the first one left behind."""


ALONE = (
    Shape("compiled.py", 6),
    Shape("functional.py", 0, frozenset({"rng"}), "not replayable", "nothing that was computed"),
    Shape("hogwild.py", 400, outcome="diverged", why="2 processes trained side by side"),
    Shape("manual.py", 0, frozenset({"rng", "loss"})),
    Shape("scatter.py", 30, outcome="diverged", why="such as the gradient of an index"),
    Shape("stdin.py", 0, frozenset(), "diverged", "0 of 3 steps", given=b"1 2\n2 4\n3 6\n"),
)
"""Those that are runs of their own: they compile, read what comes in, make no step, or differ."""

TOGETHER = (
    Shape("accumulate.py", 4, LOADED),
    Shape("amp.py", 7),
    Shape("augment.py", 8, LOADED),
    Shape("cache.py", 8, LOADED),
    Shape("cartpole.py", 6),
    Shape("chdir.py", 6),
    Shape("clock_seed.py", 5),
    Shape("cnn.py", 8, LOADED),
    Shape("embedding.py", 16),
    Shape("forest.py", 18),
    Shape("gan.py", 12),
    Shape("gcn.py", 12),
    Shape("ignite_engine.py", 8, LOADED),
    Shape("lbfgs.py", 5),
    Shape("lstm.py", 10, LOADED),
    Shape("resume.py", 9),
    Shape("sets.py", 12),
    Shape("skorch_net.py", 8, LOADED),
    Shape("stream.py", 8, LOADED),
    Shape("threads.py", 18),
    Shape("transformer.py", 10),
    Shape("accelerate_loop.py", 6, LOADED),
    Shape("hf_trainer.py", 8, LOADED),
    Shape("lightning_module.py", 8, LOADED),
    Shape("cache.py", 8, LOADED, is_recorded_again=True),
    Shape("resume.py", 9, is_recorded_again=True),
)


def named(shape: Shape) -> str:
    return shape.script.removesuffix(".py") + ("-again" if shape.is_recorded_again else "")


RUNS = TOGETHER[:16], TOGETHER[16:]
"""The first sixteen, as more children of one run have no journals; those of before come after."""


@pytest.mark.parametrize("shape", ALONE, ids=named)
def test_a_replay_is_called_what_it_is(
    shape: Shape,
    project: Path,
    base: Path,
    given: Callable[[bytes], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # scripts that want more say so
    for script in (shape.script, "descent.py"):
        shutil.copy(SCRIPTS / script, project)
    given(shape.given)
    recorded = launch([sys.executable, "-W", "ignore", shape.script], base=base)
    assert recorded.exit_code == 0
    given(b"")
    verdict = replay(recorded.run, base=base)
    said = [verdict.sentence, *verdict.reasons]
    said += [f"{item.section}.{item.key}" for item in verdict.explanations]
    assert verdict.outcome == shape.outcome, said
    assert shape.why in "\n".join(said)
    assert verdict.comparison is not None
    assert verdict.comparison.steps == shape.steps
    assert frozenset(verdict.comparison.streams) == shape.streams
    assert manifest_of(recorded.run).notes == (), "everything could be recorded"


def manifest_of(run: RunDirectory) -> Manifest:
    return Manifest.model_validate(run.document())


@dataclass(frozen=True)
class Repeated:
    """A run of several scripts, and its replay."""

    shapes: tuple[Shape, ...]
    original: RunDirectory
    again: RunDirectory
    verdict: Verdict

    def compared(self, shape: Shape) -> TrailComparison:
        """What the processes of one script computed, compared."""
        child = f"main.f{self.shapes.index(shape)}"
        trails = [
            {
                process: trail
                for process, trail in ranks.trails(run, manifest_of(run)).items()
                if process == child or process.startswith(f"{child}.")
            }
            for run in (self.original, self.again)
        ]
        assert trails[0].keys() == trails[1].keys()
        return compare_trails(*trails)


@pytest.fixture(scope="module")
def together(at_work: Callable[[str], AbstractContextManager[Path]]) -> list[Repeated]:
    """The runs of all that share one, and their replays."""
    repeated = []
    with at_work("together") as project:
        for script in ("each.py", *(shape.script for shape in TOGETHER)):
            shutil.copy(SCRIPTS / script, project)
        (project / "config.json").write_text(CONFIG)
        base = project / ".manifest"
        for shapes in RUNS:
            scripts = [shape.script for shape in shapes]
            recorded = launch([sys.executable, "-W", "ignore", "each.py", *scripts], base=base)
            assert recorded.exit_code == 0
            verdict = replay(recorded.run, base=base)
            assert verdict.replay is not None
            again = RunDirectory(base / "runs" / verdict.replay)
            repeated.append(Repeated(shapes, recorded.run, again, verdict))
    return repeated


@pytest.mark.parametrize("shape", TOGETHER, ids=named)
def test_a_replay_of_scripts_that_share_a_run_is_identical(
    shape: Shape, together: list[Repeated]
) -> None:
    (repeated,) = (each for each in together if shape in each.shapes)
    verdict = repeated.verdict
    assert verdict.outcome == shape.outcome == "identical", [verdict.sentence, *verdict.reasons]
    found = repeated.compared(shape)
    assert found.divergence is None
    assert found.steps == shape.steps
    assert frozenset(found.streams) == shape.streams
    assert manifest_of(repeated.original).notes == (), "everything could be recorded"
