"""What decides how the optimizers of a program make their steps."""

from __future__ import annotations

import torch
from torch.optim.optimizer import Optimizer

from manifest.canonical import Json, attempted

_MOST_OPTIMIZERS = 16


class Optimizers:
    """Describes each optimizer of a process once, in the order of their first steps."""

    def __init__(self) -> None:
        self._count = 0

    def describe(self, optimizer: Optimizer) -> dict[str, Json]:
        """The settings of an optimizer that steps for the first time, under its ordinal."""
        if self._count >= _MOST_OPTIMIZERS:
            return {}
        name, self._count = f"optimizer.{self._count}", self._count + 1
        kind, groups = type(optimizer), optimizer.param_groups
        return {
            f"{name}.class": f"{kind.__module__}.{kind.__qualname__}",
            f"{name}.foreach": attempted(lambda: [group.get("foreach") for group in groups]),
            f"{name}.fused": attempted(lambda: [group.get("fused") for group in groups]),
            f"{name}.channels_last": attempted(lambda: _is_channels_last(optimizer)),
        }


def _is_channels_last(optimizer: Optimizer) -> bool | None:
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    first = next((parameter for parameter in parameters if parameter.dim() == 4), None)
    return None if first is None else first.is_contiguous(memory_format=torch.channels_last)
