"""Dense replays: whether a program is deterministic, and the first operation that is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from manifest.launching import Launched
from manifest.replaying import _with_determinism, dense_window, replay
from manifest.rundir import RunDirectory, run_directories
from manifest.trail import Trail
from manifest.verdicts import judge

SCRIPT = """
import sys
import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(2)
model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
compiled = torch.compile(lambda x: x.sin() * 2, backend="eager")
for step in range(90):
    inputs = compiled(torch.randn(4, 6))
    optimizer.zero_grad()
    loss = model(inputs).square().mean()
    loss.backward()
    optimizer.step()
"""

UNSTABLE = """
import torch
from descent import Descent

torch.set_num_threads(2)
torch.manual_seed(0)
weight = torch.nn.Parameter(torch.randn(7, 64))
index = torch.randint(0, 7, (60_000,))
optimizer = Descent([weight], lr=0.1)
for step in range(4):
    optimizer.zero_grad()
    loss = (
        weight[index] * torch.randn(60_000, 1)
    ).square().mean()
    loss.backward()
    optimizer.step()
import late  # which a replay that is stopped before does not get to
"""


def trail_of(run: RunDirectory) -> Trail:
    (path,) = run.trail_paths().values()
    return Trail.open(path)


def test_a_dense_replay_has_the_same_bits_and_keeps_every_tensor(
    script: Callable[[str, str], Path], recorded: Callable[..., Launched], base: Path
) -> None:
    script("train.py", SCRIPT)
    launched = recorded("train.py")
    verdict = replay(launched.run, base=base, dense=range(80, 83))
    assert verdict.outcome == "identical", verdict.sentence
    again = next(run for run in run_directories(base) if run.id == verdict.replay)
    trail = trail_of(again)
    assert trail.steps == 83
    assert {80, 81, 82} <= {*trail.leaves.steps("grad")}
    assert 81 not in trail_of(launched.run).leaves.steps("grad")
    found = trail.operations
    assert list(found.steps) == [80, 81, 82]
    assert found.has_compiled
    named = {(each.name, each.place, each.node) for each in found.steps[81]}
    assert ("aten.randn.default", "train.py:12", "") in named
    assert ("aten.bernoulli_.float", "train.py:14", "") in named
    assert ("aten.threshold_backward.default", "train.py:15", "ReluBackward0") in named
    assert again.document()["notes"] == launched.run.document()["notes"]
    (reason,) = _with_determinism(verdict, again, again).reasons
    assert reason.startswith("two replays are equal to one another")


def test_a_program_that_is_not_deterministic_is_found_out(
    script: Callable[[str, str], Path], recorded: Callable[..., Launched], base: Path
) -> None:
    script("train.py", UNSTABLE)
    script("late.py", "")
    launched = recorded("train.py")
    window = dense_window(launched.run, base=base)
    assert window == range(3)
    verdict = replay(launched.run, base=base, dense=window)
    assert verdict.outcome == "diverged"
    assert verdict.operation is not None
    assert verdict.operation.node == "IndexBackward0"
    assert verdict.operation.place == "train.py:15"
    assert verdict.operation.step == 0
    assert "the program itself is not deterministic, as two replays differ" in verdict.reasons[0]
    assert f"`{verdict.operation.name}` at step 0, train.py:15" in verdict.reasons[0]
    replays = [run for run in run_directories(base) if run.id != launched.run.id]
    assert len(replays) == 2
    for section, key in (("seeds", "draws"), ("code", "imported")):  # nothing else was imported
        found = {str(run.document()["sections"][section][key]) for run in run_directories(base)}
        assert len(found) == 1
    assert dense_window(launched.run, base=base) == range(3)
    assert dense_window(launched.run, base=base, start=2, until=9) == range(2, 9)


def test_two_dense_runs_show_the_operation_where_one_bit_was_changed(
    script: Callable[[str, str], Path],
    recorded: Callable[..., Launched],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = SCRIPT.replace("range(90)", "range(5)").replace(
        "    loss =",
        """    if step == 3:
        with torch.no_grad():
            model[0].weight.view(torch.int32)[0, 3] ^= int(sys.argv[1])
    loss =""",
    )
    script("train.py", source)
    monkeypatch.setenv("MANIFEST_DENSE", "2:5")
    one = recorded("train.py", "0").run
    other = recorded("train.py", "1", like=one).run
    verdict = judge(one, other)
    found = verdict.operation
    assert found is not None
    assert (found.step, found.place) == (3, "train.py:16")
    assert "xor" in found.name
    assert f"operation that differs is `{found.name}` at step 3, train.py:16" in verdict.sentence
