"""A watcher of programs that train, and small trainings for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from manifest.pytorch.watching import Watcher
from manifest.trail import Trail

MakeModel = Callable[[], nn.Sequential]


class Watching:
    """A watcher, where its trail lies, and what it noted."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "main.bin"
        self.notes: list[tuple[str, object]] = []
        self.watcher = Watcher(
            lambda: self.path, on_note=lambda where, what: self.notes.append((where, what))
        )

    def trail(self) -> Trail:
        self.watcher.finish()
        assert self.notes == []
        return Trail.open(self.path)


@pytest.fixture
def watch() -> Callable[[Path], Watching]:
    """Make a watcher whose trail will lie in a folder; it watches when it is installed."""
    return Watching


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    """A watcher that is installed."""
    watching = Watching(tmp_path)
    watching.watcher.install()
    yield watching
    watching.watcher.finish()


@pytest.fixture
def make_model() -> MakeModel:
    """Make the same model at each call; its names are learnt where a watcher is installed."""

    def make() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))

    return make


@pytest.fixture
def train() -> Callable[..., None]:
    """Let an optimizer make some steps."""

    def run(model: nn.Module, optimizer: Optimizer, *, steps: int = 3) -> None:
        torch.manual_seed(1)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = model(torch.randn(5, 4)).square().mean()
            loss.backward()
            optimizer.step()

    return run
