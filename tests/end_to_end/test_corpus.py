"""Training scripts of many shapes, as users write them: what a replay of each is called."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from manifest.launching import launch
from manifest.models import Manifest, Outcome
from manifest.replaying import replay

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


SHAPES = (
    Shape("accelerate_loop.py", 6, LOADED),
    Shape("accumulate.py", 4, LOADED),
    Shape("amp.py", 7),
    Shape("augment.py", 8, LOADED),
    Shape("cache.py", 8, LOADED),
    Shape("cache.py", 8, LOADED, is_recorded_again=True),
    Shape("cartpole.py", 6),
    Shape("chdir.py", 6),
    Shape("clock_seed.py", 5),
    Shape("cnn.py", 8, LOADED),
    Shape("compiled.py", 6),
    Shape("embedding.py", 16),
    Shape("forest.py", 18),
    Shape("functional.py", 0, frozenset({"rng"}), "not replayable", "nothing that was computed"),
    Shape("gan.py", 12),
    Shape("gcn.py", 12),
    Shape("hf_trainer.py", 8, LOADED),
    Shape("hogwild.py", 400, outcome="diverged", why="2 processes trained side by side"),
    Shape("ignite_engine.py", 8, LOADED),
    Shape("lbfgs.py", 5),
    Shape("lightning_module.py", 8, LOADED),
    Shape("lstm.py", 10, LOADED),
    Shape("manual.py", 0, frozenset({"rng", "loss"})),
    Shape("resume.py", 9),
    Shape("resume.py", 9, is_recorded_again=True),
    Shape("scatter.py", 30, outcome="diverged", why="such as the gradient of an index"),
    Shape("sets.py", 12),
    Shape("skorch_net.py", 8, LOADED),
    Shape("stdin.py", 0, frozenset(), "diverged", "0 of 3 steps", given=b"1 2\n2 4\n3 6\n"),
    Shape("stream.py", 8, LOADED),
    Shape("threads.py", 18),
    Shape("transformer.py", 10),
)


def named(shape: Shape) -> str:
    return shape.script.removesuffix(".py") + ("-again" if shape.is_recorded_again else "")


@pytest.mark.parametrize("shape", SHAPES, ids=named)
def test_a_replay_is_called_what_it_is(
    shape: Shape,
    project: Path,
    base: Path,
    given: Callable[[bytes], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # scripts that want more say so
    shutil.copy(SCRIPTS / shape.script, project)
    (project / "config.json").write_text(CONFIG)
    for _ in range(1 + shape.is_recorded_again):
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
    manifest = Manifest.model_validate(recorded.run.document())
    assert manifest.notes == (), "everything could be recorded"
