"""Weights & Biases, offline: one metric a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def load() -> None:
    """Import it."""
    import wandb  # noqa: F401


def record(config: dict[str, Any], train: Callable[[Any], None]) -> None:
    """Train inside a run."""
    import wandb

    with wandb.init(project="benchmark", mode="offline", config=config) as run:
        train(lambda step, loss: run.log({"loss": loss.item()}, step=step))
