"""Loaders that Accelerate has prepared: what is within, and how many batches the wrapper holds.

It fetches one round ahead of what it gives, to know the last one when it comes.
"""

from __future__ import annotations

from typing import Any


def within(loader: Any) -> tuple[Any, int]:
    """The loader of PyTorch in a prepared one, and how many of its batches the wrapper holds."""
    base = getattr(loader, "base_dataloader", None)
    if base is None:
        return loader, 0
    # One that dispatches fetches a batch for each process, unless it splits one.
    is_for_all = hasattr(loader, "split_batches") and not loader.split_batches
    return base, loader.state.num_processes if is_for_all else 1
