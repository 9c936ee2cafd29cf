"""Optimizers that the program steps: how they update, and what.

Described at the first step, before it: a warm-up has set the rate by then, and the model has the
precision, the device and the memory layout in which it trains.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.optim.optimizer import Optimizer

from manifest.canonical import Json, plain

_LONGEST_TEXT = 200
_MOST_ITEMS = 16


def described(optimizer: Optimizer) -> dict[str, Json]:
    """The class of an optimizer, its options, and what kind of parameters it updates.

    An option that groups of parameters have otherwise is a list, by group.
    """
    groups = optimizer.param_groups
    parameters = [parameter for group in groups for parameter in group["params"]]
    names = dict.fromkeys(name for group in groups for name in group if name != "params")
    kind = type(optimizer)
    return {
        **{str(name): _shared([_option(group.get(name)) for group in groups]) for name in names},
        "class": f"{kind.__module__}.{kind.__qualname__}"[:_LONGEST_TEXT],
        "groups": len(groups),
        "tensors": len(parameters),
        "elements": sum(parameter.numel() for parameter in parameters),
        "dtypes": _distinct(str(parameter.dtype) for parameter in parameters),
        "devices": _distinct(parameter.device.type for parameter in parameters),
        "channels_last": sum(map(_is_channels_last, parameters)),
    }


def _shared(values: list[Json]) -> Json:
    return values[0] if all(_is_same(value, values[0]) for value in values) else values


def _is_same(one: Json, other: Json) -> bool:
    return type(one) is type(other) and bool(one == other)


def _option(value: Any) -> Json:
    if isinstance(value, Tensor):
        # One of an accelerator would have to be waited for.
        is_here = value.device.type == "cpu" and value.numel() == 1
        return plain(value.item()) if is_here else f"a tensor on {value.device.type}"
    if value is None or isinstance(value, (bool, int, float)):
        return plain(value)
    if isinstance(value, str):
        return plain(value[:_LONGEST_TEXT])
    if isinstance(value, (tuple, list)):
        return [_option(item) for item in value[:_MOST_ITEMS]]
    return f"a {type(value).__name__}"[:_LONGEST_TEXT]


def _distinct(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values)))


def _is_channels_last(parameter: Tensor) -> bool:
    # By strides, as kernels are chosen: with one channel a tensor counts as contiguous both ways.
    if parameter.dim() not in (4, 5):
        return False
    shape, strides = parameter.shape, parameter.stride()
    is_pointwise = all(size == 1 for size in shape[2:])
    return strides[1] == 1 and (strides[-1] != 1 or not is_pointwise)
