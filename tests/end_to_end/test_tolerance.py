"""A run of other bits is within a tolerance or not, and is said to have other bits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from manifest.launching import Launched
from manifest.models import Verdict
from manifest.trail import Trail, beside
from manifest.verdicts import judge

MANIFEST = "from manifest_client.cli.main import main; main()"

SCRIPT = """
import sys
import torch
from descent import Descent
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 80), nn.ReLU(), nn.Linear(80, 1))
optimizer = Descent(model.parameters(), lr=0.1)
for step in range(8):
    inputs = torch.randn(4, 6)
    optimizer.zero_grad()
    model(inputs).square().mean().backward()
    optimizer.step()
    if step == 3 and sys.argv[1] == "one bit":
        with torch.no_grad():
            model[0].weight.view(torch.int32)[0, 3] ^= 64
"""


def test_another_bit_is_within_a_tolerance_that_is_asked_for(
    script: Callable[[str, str], Path], recorded: Callable[..., Launched], base: Path
) -> None:
    script("train.py", SCRIPT)
    one = recorded("train.py", "as ever").run
    other = recorded("train.py", "one bit", like=one).run
    (path,) = one.trail_paths().values()
    trail = Trail.open(path)
    assert len(trail.losses) == trail.steps == 8
    assert {name: each.size for name, each in trail.samples.items()} == {
        "0.weight": 480,
        "0.bias": 80,
        "2.weight": 80,
        "2.bias": 1,
    }

    plain = judge(one, other)
    assert (plain.outcome, plain.tolerance) == ("diverged", None)
    asked = judge(one, other, tolerance=(1e-3, 0.0))
    assert asked.outcome == "within tolerance"
    assert asked.sentence.startswith("the loss of 8 steps and samples of 4 parameters agree within")
    assert "; bits: equal to step 3; at step 4 the" in asked.sentence
    assert judge(one, other, tolerance=(1e-12, 0.0)).outcome == "diverged"
    assert judge(one, one, tolerance=(1e-3, 0.0)).outcome == "identical"

    command = [sys.executable, "-c", MANIFEST, "verify", one.id, other.id]
    answer = subprocess.run(
        [*command, "--rtol", "1e-3", "--json"], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert Verdict.model_validate_json(answer.stdout) == asked
    said = subprocess.run(
        [*command, "--atol", "1e-12"], capture_output=True, text=True, check=False
    )
    assert said.returncode == 1
    assert "allowed   rtol 0, atol 1e-12" in said.stdout

    for suffix in (".losses", ".samples"):
        Path(beside(str(path), suffix)).unlink()
    old = judge(one, other, tolerance=(1e-3, 0.0))
    assert old.outcome == "diverged"
    assert old.sentence.startswith("no numbers were recorded in both runs")
