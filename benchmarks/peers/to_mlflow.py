"""MLflow, with the store that `MLFLOW_TRACKING_URI` names: one metric a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def load() -> None:
    """Import it."""
    import mlflow  # noqa: F401


def record(config: dict[str, Any], train: Callable[[Any], None]) -> None:
    """Train inside a run."""
    import mlflow

    with mlflow.start_run():
        mlflow.log_params(config)
        train(lambda step, loss: mlflow.log_metric("loss", loss.item(), step=step))
