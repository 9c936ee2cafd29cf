"""Sacred with its FileStorageObserver: one metric a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def load() -> None:
    """Import it."""
    import sacred.observers  # type: ignore[import-not-found] # noqa: F401


def record(config: dict[str, Any], train: Callable[[Any], None]) -> None:
    """Train inside a run; Sacred calls the training itself."""
    import sacred

    experiment = sacred.Experiment("benchmark")
    experiment.observers.append(sacred.observers.FileStorageObserver("runs"))
    experiment.add_config(config)

    @experiment.main  # type: ignore[untyped-decorator]
    def main(_run: Any) -> None:
        train(lambda step, loss: _run.log_scalar("loss", loss.item(), step))

    experiment.run()
