"""Operations that give the same bits each time, in place of some of PyTorch's that may not.

They are tried on the CPU; on CUDA, where PyTorch's own gave other bits from time to time, those of
`index_select`, `reflection_pad`, `median` and `adaptive_avg_pool` repeated themselves on an H200 in
any mode, and the others are made of what these are. Each says where PyTorch's own is as good.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from manifest.errors import ArgumentInvalid


def deterministic_index_select(input: Tensor, dim: int, indices: Tensor) -> Tensor:  # noqa: A002 -- as torch names it
    """`torch.index_select`, whose gradient is added in one order on every device, in any mode.

    Plain `torch.index_select` is as good on the CPU, and on CUDA in deterministic mode (PyTorch
    2.13 lists it). The indexing that is often put in its place, `input[indices]`, is worse: on the
    CPU, with two threads and without that mode, seven gradients of eight differed.

    Args:
        input: What to select from.
        dim: Along which dimension.
        indices: Of whole numbers; they may repeat.

    Raises:
        RuntimeError: As of `torch.index_select`.
        IndexError: As of `torch.index_select`.
    """
    selected: Tensor = _IndexSelect.apply(input, dim, indices)  # type: ignore[no-untyped-call]  # of torch
    return selected


class _IndexSelect(torch.autograd.Function):
    @staticmethod
    def forward(tensor: Tensor, dim: int, indices: Tensor) -> Tensor:
        return torch.index_select(tensor, dim, indices)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 -- as torch calls it
        tensor, ctx.dim, indices = inputs
        ctx.shape = tensor.shape
        ctx.save_for_backward(indices)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        zeros = gradients[0].new_zeros(ctx.shape)
        # One after another on the CPU; on CUDA that races.
        add = torch.index_add if zeros.is_cpu or not ctx.shape else added_in_order
        return add(zeros, ctx.dim, ctx.saved_tensors[0], gradients[0]), None, None


def added_in_order(zeros: Tensor, dim: int, indices: Tensor, values: Tensor) -> Tensor:
    """`torch.index_add` by what CUDA sorts before it adds."""
    rows, values = zeros.transpose(0, dim), values.transpose(0, dim)
    return rows.index_put((indices.reshape(-1),), values, accumulate=True).transpose(0, dim)


def deterministic_put(
    input: Tensor,  # noqa: A002 -- as torch names it
    index: Tensor,
    source: Tensor,
    *,
    accumulate: bool = False,
) -> Tensor:
    """`torch.put`, which deterministic mode refuses on every device, as the `index_put` it allows.

    Where an index repeats and nothing is added, the last one wins, in any mode. Plain `torch.put`
    is as good with ``accumulate=True`` on the CPU in deterministic mode.

    Args:
        input: Taken as if it had one dimension; it is not changed.
        index: Places in it.
        source: What to put there, as many.
        accumulate: Whether to add instead.

    Raises:
        ArgumentInvalid: There are not as many values as places.
        IndexError: A place is outside.
    """
    if index.numel() != source.numel():
        raise ArgumentInvalid(f"expected {index.numel()} values to put, found {source.numel()}")
    places, values = index.reshape(-1), source.reshape(-1)
    if not accumulate:
        last = _last_of_each(torch.where(places < 0, places + input.numel(), places))
        places, values = places[last], values[last]
    flat = input.reshape(-1).index_put((places,), values, accumulate=accumulate)
    return flat.reshape(input.shape)


def _last_of_each(places: Tensor) -> Tensor:
    """Where each place occurs last: of several that are put to one place, any one may win."""
    ordered, order = places.sort(stable=True)
    is_last = torch.ones_like(ordered, dtype=torch.bool)
    is_last[:-1] = ordered[1:] != ordered[:-1]
    return order[is_last]


def deterministic_max_unpool(
    input: Tensor,  # noqa: A002 -- as torch names it
    indices: Tensor,
    output_size: Sequence[int],
) -> Tensor:
    """`max_unpool1d`, `2d` and `3d`, which deterministic mode refuses on every device.

    Two windows that overlap may have the same largest element, and then put the same value there.

    Args:
        input: What was pooled.
        indices: What the pooling returned with ``return_indices=True``.
        output_size: The sizes to return to: one, two or three, as the pooling had.

    Raises:
        RuntimeError: An index is outside.
    """
    spatial = len(output_size)
    flat, places = input.flatten(-spatial), indices.flatten(-spatial)
    zeros = input.new_zeros((*flat.shape[:-1], math.prod(output_size)))
    return zeros.scatter(-1, places, flat).reshape(*input.shape[:-spatial], *output_size)


def deterministic_bincount(input: Tensor, weights: Tensor, minlength: int = 0) -> Tensor:  # noqa: A002 -- as torch names it
    """`torch.bincount` with weights, which deterministic mode refuses on CUDA.

    Plain `torch.bincount` is as good on the CPU, and everywhere without weights.

    Args:
        input: Whole numbers from 0 on, in one dimension.
        weights: What each adds to its bin.
        minlength: How many bins there are at least.

    Raises:
        ArgumentInvalid: They are not so.
    """
    if input.ndim != 1 or input.shape != weights.shape or (input < 0).any() or minlength < 0:
        raise ArgumentInvalid(
            "expected whole numbers from 0 on in one dimension, and as many weights; "
            f"found {tuple(input.shape)} and {tuple(weights.shape)}"
        )
    added = weights if weights.dtype == torch.float32 else weights.double()
    length = max(minlength, int(input.max()) + 1 if input.numel() else 0)
    zeros = added.new_zeros(length)
    if zeros.is_cpu:
        return zeros.scatter_add(0, input.long(), added)
    return added_in_order(zeros, 0, input.long(), added)


def deterministic_reflection_pad(input: Tensor, padding: Sequence[int]) -> Tensor:  # noqa: A002 -- as torch names it
    """`torch.nn.functional.pad` with ``mode="reflect"``, whose gradient CUDA refuses.

    Plain `pad` is as good on the CPU.

    Args:
        input: What to pad.
        padding: Before and after, of the last dimension first, as `pad` takes it.

    Raises:
        ArgumentInvalid: There is not as much to reflect.
    """
    if len(padding) % 2 or len(padding) > 2 * input.ndim:
        raise ArgumentInvalid(f"expected a pair of each dimension to pad, found {list(padding)}")
    padded = input
    for number, (before, after) in enumerate(zip(padding[::2], padding[1::2], strict=True)):
        dim = input.ndim - 1 - number
        size = input.shape[dim]
        if not (0 <= before < size and 0 <= after < size):
            raise ArgumentInvalid(
                f"expected to pad dimension {dim} by 0 to {size - 1}, found {before} and {after}"
            )
        first = padded.narrow(dim, 1, before).flip(dim)
        last = padded.narrow(dim, size - 1 - after, after).flip(dim)
        padded = torch.cat((first, padded, last), dim)
    return padded


class Median(NamedTuple):
    """The middle of a dimension, and where it is."""

    values: Tensor
    indices: Tensor


def deterministic_median(input: Tensor, dim: int = -1, *, keepdim: bool = False) -> Median:  # noqa: A002 -- as torch names it
    """`torch.median` along a dimension with its indices, which deterministic mode refuses on CUDA.

    Of equal elements the one that a stable sort has in the middle is meant. The values are those
    of plain `torch.median`, which is as good on the CPU, and everywhere without indices.

    Args:
        input: Real numbers.
        dim: Along which dimension.
        keepdim: Whether it stays, with size 1.

    Raises:
        IndexError: There is no such dimension, or nothing along it.
    """
    if input.ndim and not input.shape[dim]:
        raise IndexError(f"expected something along dimension {dim}, found a size of 0")
    ordered, places = input.sort(dim=dim, stable=True)
    number = input.shape[dim] if input.ndim else 1
    nans = input.isnan().sum(dim, keepdim=True)
    # One that is no number is the median, as of `torch.median`; such are sorted last.
    middle = torch.where(nans > 0, number - nans, (number - 1) // 2)
    found = Median(ordered.gather(dim, middle), places.gather(dim, middle))
    return found if keepdim else Median(*(each.squeeze(dim) for each in found))


def deterministic_adaptive_avg_pool(input: Tensor, output_size: Sequence[int]) -> Tensor:  # noqa: A002 -- as torch names it
    """`adaptive_avg_pool1d`, `2d` and `3d` as matrix products; CUDA refuses the gradient of two.

    It rounds otherwise than PyTorch's, in the last bits. Plain pooling is as good on the CPU; to a
    size of 1, `input.mean((-2, -1), keepdim=True)` is quicker.

    Args:
        input: What to pool.
        output_size: The sizes of its last dimensions: one, two or three.

    Raises:
        ArgumentInvalid: A size is below 1.
    """
    if min(output_size, default=0) < 1 or len(output_size) > input.ndim:
        raise ArgumentInvalid(f"expected sizes from 1 on, found {list(output_size)}")
    pooled = input
    for dim, size in zip(itertools.count(-len(output_size)), output_size):
        averaging = _averaging(input.shape[dim], size).to(input)
        pooled = (pooled.movedim(dim, -1) @ averaging).movedim(-1, dim)
    return pooled


def _averaging(number: int, size: int) -> Tensor:
    """A matrix each of whose columns averages one window."""
    matrix = torch.zeros(number, size, dtype=torch.float64)
    for column in range(size):
        first, last = column * number // size, -(-(column + 1) * number // size)
        matrix[first:last, column] = 1 / (last - first)
    return matrix
