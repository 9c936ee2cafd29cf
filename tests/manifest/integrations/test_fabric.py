"""A loop of Fabric that goes on from a checkpoint computes what the whole loop did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def test_each_rank_goes_on_with_the_bits_of_the_whole_loop(loop: list[Any]) -> None:
    for rank in loop:
        losses = rank["whole"]["losses"]
        for step, resumed in rank["resumed"].items():
            assert resumed == {"losses": losses[int(step) :], "bits": rank["whole"]["bits"]}, step


def test_fabric_alone_begins_the_epoch_again(loop: list[Any]) -> None:
    for rank in loop:
        for step, alone in rank["alone"].items():
            assert len(alone["losses"]) > len(rank["whole"]["losses"]) - int(step)


def test_a_loop_computes_the_same_with_the_state_saved(loop: list[Any]) -> None:
    for rank in loop:
        assert rank["whole"] == rank["plain"]


GIVEN = """\
import sys, torch
from lightning_fabric import Fabric

fabric = Fabric(accelerator="cpu")
model = torch.nn.Linear(1, 1)
model, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.01))
loader = torch.utils.data.DataLoader([torch.tensor([float(i)]) for i in range(8)], shuffle=True)
checkpoint = sys.argv[1] if len(sys.argv) > 1 else None
"""
LOOP = """
batches = []
for batch in loader:
    batches.append(batch.item())
    if len(batches) == 3 and not checkpoint:
        fabric.save("saved.ckpt", state)
print(batches)
"""


def test_the_lines_of_the_guide_continue_a_loop(continued: Callable[..., None]) -> None:
    continued("Fabric", GIVEN, LOOP, checkpoint="saved.ckpt")
