"""Names of parameters: those that the optimizer was given, else those of the modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim import SGD

if TYPE_CHECKING:
    from tests.pytorch.conftest import Watching

MakeModel = Callable[[], nn.Sequential]
Train = Callable[..., None]


def test_names_given_to_the_optimizer_come_first(
    watching: Watching, make_model: MakeModel, train: Train
) -> None:
    model = make_model()
    named = [(f"mine.{name}", weight) for name, weight in model.named_parameters()]
    train(model, SGD(named, lr=0.1), steps=1)
    assert list(watching.trail().leaves.at(0, "param") or {}) == [name for name, _ in named]


def test_names_reach_from_the_outermost_module(watching: Watching, train: Train) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 1, bias=False)])
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, inputs: Tensor) -> Tensor:
            out: Tensor = self.layers[1](self.layers[0](inputs)) * self.scale
            return out

    model = Net()
    train(model, SGD(model.parameters(), lr=0.1), steps=1)
    leaves = watching.trail().leaves.at(0, "param") or {}
    assert list(leaves) == [name for name, _ in model.named_parameters()]
