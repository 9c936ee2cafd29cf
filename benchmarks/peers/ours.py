"""`manifest.record()`: a fingerprint of every step, by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def load() -> None:
    """Import it."""
    import manifest  # noqa: F401


def record(config: dict[str, Any], train: Callable[[Any], None]) -> None:
    """Train inside a run."""
    import manifest

    with manifest.record(config=config):
        train(lambda step, loss: None)
