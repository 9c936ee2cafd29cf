"""Generators of a program's own: an extra draw is found at its step, by the generator's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from manifest.launching import Launched
from manifest.replaying import replay
from manifest.trail import Trail
from manifest.verdicts import judge

SCRIPT = """
import random, sys
import torch
from descent import Descent
from torch.utils.data import DataLoader
import manifest

run = manifest.record()
augmentation = random.Random(5)
run.track("augmentation", augmentation)
noise = torch.Generator().manual_seed(6)
order = torch.Generator().manual_seed(7)
loader = DataLoader(torch.ones(24, 2), batch_size=4, shuffle=True, generator=order)
model = torch.nn.Linear(2, 1)
optimizer = Descent(model.parameters(), lr=0.1)
for step, batch in enumerate(loader):
    if sys.argv[1] == "more" and step == 2:
        torch.rand(1, generator=noise)
    if sys.argv[1] == "more" and step == 4:
        augmentation.random()
    model(batch).sum().backward()
    optimizer.step()
"""


def test_an_extra_draw_is_found(
    script: Callable[[str, str], Path], recorded: Callable[..., Launched], base: Path
) -> None:
    script("train.py", SCRIPT)
    launched = recorded("train.py", "as ever")
    (path,) = launched.run.trail_paths().values()
    noise = "torch.Generator train.py:11"
    names = {"augmentation", "loader.0.generator", noise}
    assert Trail.open(path).leaves.names("own") == [(0, names)]
    verdict = replay(launched.run, base=base)
    assert verdict.outcome == "identical", verdict.sentence

    found = judge(launched.run, recorded("train.py", "more", like=launched.run).run).comparison
    assert found is not None
    assert found.divergence is not None
    assert (found.divergence.step, found.divergence.stream) == (2, "rng")
    assert found.divergence.tensors == (noise,)
