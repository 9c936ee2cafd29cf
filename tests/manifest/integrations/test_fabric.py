"""A loop of Fabric goes on from a checkpoint by the lines of the guide."""

from __future__ import annotations

from collections.abc import Callable

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
