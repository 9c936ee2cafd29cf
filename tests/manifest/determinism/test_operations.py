"""The replacements compute what PyTorch computes, and run where its own is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 -- its usual name

from manifest.determinism import (
    deterministic,
    deterministic_adaptive_avg_pool,
    deterministic_bincount,
    deterministic_index_select,
    deterministic_max_unpool,
    deterministic_median,
    deterministic_put,
    deterministic_reflection_pad,
)
from manifest.determinism.operations import added_in_order
from manifest.errors import ArgumentInvalid


@pytest.fixture(autouse=True)
def _strict() -> Iterator[None]:
    torch.manual_seed(1)
    with deterministic():
        yield


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def with_gradient(function: Callable[[Tensor], Tensor], tensor: Tensor) -> tuple[Tensor, Tensor]:
    result = function(tensor)
    weights = torch.arange(1.0, result.numel() + 1, dtype=result.dtype).view(result.shape)
    (gradient,) = torch.autograd.grad((result * weights).sum(), tensor)
    return result.detach(), gradient


def gradcheck(function: Callable[[Tensor], Tensor], tensor: Tensor) -> None:
    assert torch.autograd.gradcheck(function, (tensor,))
    assert torch.autograd.gradgradcheck(function, (tensor,))


def assert_same_bits(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> None:
    for own, other in zip(ours, theirs, strict=True):
        assert own.dtype == other.dtype
        assert torch.equal(own, other)


@pytest.mark.parametrize("indices", [[0, 2, 2, 1, 2], [], [1], [2, 2]])
@pytest.mark.parametrize("dim", range(-3, 3))
def test_index_select_has_the_bits_of_torch_and_its_gradient(dim: int, indices: list[int]) -> None:
    tensor, wanted = numbers(3, 4, 5), torch.tensor(indices, dtype=torch.int64)
    assert_same_bits(
        with_gradient(lambda x: deterministic_index_select(x, dim, wanted), tensor),
        with_gradient(lambda x: torch.index_select(x, dim, wanted), tensor),
    )


@pytest.mark.parametrize("dim", range(-2, 2))
def test_the_gradient_of_index_select_is_one_and_has_one(dim: int) -> None:
    wanted = torch.tensor([0, 1, 1], dtype=torch.int32)
    gradcheck(lambda x: deterministic_index_select(x, dim, wanted), numbers(2, 3))


@pytest.mark.parametrize("dim", range(-3, 3))
@pytest.mark.parametrize("indices", [[0, 2, 2, 1, 2], [], [1]])
def test_what_adds_in_order_elsewhere_adds_the_same(dim: int, indices: list[int]) -> None:
    wanted = torch.tensor(indices, dtype=torch.int64)
    values = numbers(3, 4, 5).detach().index_select(dim, wanted)
    zeros = torch.zeros(3, 4, 5, dtype=torch.float64)
    ours = added_in_order(zeros, dim, wanted, values)
    torch.testing.assert_close(ours, zeros.index_add(dim, wanted, values))


@pytest.mark.parametrize("index", [0, [0]])
def test_index_select_takes_scalars_as_torch_does(index: Any) -> None:
    wanted = torch.tensor(index)
    tensor = numbers()
    assert_same_bits(
        with_gradient(lambda x: deterministic_index_select(x, 0, wanted), tensor),
        with_gradient(lambda x: torch.index_select(x, 0, wanted), tensor),
    )


@pytest.mark.parametrize(
    ("dim", "indices"),
    [
        (0, torch.tensor([[0]])),
        (0, torch.tensor([-1])),
        (0, torch.tensor([3])),
        (2, torch.tensor([0])),
        (-3, torch.tensor([0])),
        (0, torch.tensor([0.0])),
    ],
)
def test_index_select_refuses_what_torch_refuses_as_it_does(dim: int, indices: Tensor) -> None:
    tensor = numbers(3, 4)
    with pytest.raises((IndexError, RuntimeError)) as theirs:
        torch.index_select(tensor, dim, indices)
    with pytest.raises(theirs.type) as ours:
        deterministic_index_select(tensor, dim, indices)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("index", [[[0, 5], [-1, 2]], []])
def test_put_does_as_torch_does(index: Any, accumulate: bool) -> None:
    tensor, places = numbers(2, 3), torch.tensor(index, dtype=torch.int64)
    source = torch.ones(places.shape, dtype=torch.float64)
    ours = with_gradient(
        lambda x: deterministic_put(x, places, source, accumulate=accumulate), tensor
    )
    with deterministic("off"):
        theirs = with_gradient(lambda x: torch.put(x, places, source, accumulate), tensor)
    assert_same_bits(ours, theirs)
    gradcheck(lambda x: deterministic_put(x, places, source * x.sum(), accumulate=True), tensor)


def test_put_runs_where_torch_is_refused_and_the_last_wins() -> None:
    places, source = torch.tensor([1, 1]), torch.tensor([1.0, 2.0])
    with pytest.raises(RuntimeError, match="put_ does not have a deterministic"):
        torch.put(torch.zeros(3), places, source)
    assert deterministic_put(torch.zeros(3), places, source).tolist() == [0, 2, 0]
    assert deterministic_put(torch.zeros(3), torch.tensor([1, -2]), source).tolist() == [0, 2, 0]
    with pytest.raises(ArgumentInvalid, match="expected 2 values"):
        deterministic_put(torch.zeros(3), places, torch.ones(3))
    with pytest.raises(IndexError):
        deterministic_put(torch.zeros(1), places, source)


@pytest.mark.parametrize("spatial", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])  # with 1 windows overlap
def test_max_unpool_does_as_torch_does_where_that_is_refused(spatial: int, stride: int) -> None:
    pool: Any = getattr(F, f"max_pool{spatial}d")
    unpool: Any = getattr(F, f"max_unpool{spatial}d")
    size = (4, 5, 6)[:spatial]
    pooled, indices = pool(numbers(2, 3, *size), 2, stride, return_indices=True)
    pooled = pooled.detach().requires_grad_()
    ours = with_gradient(lambda x: deterministic_max_unpool(x, indices, size), pooled)
    with pytest.raises(RuntimeError, match="does not have a deterministic"):
        unpool(pooled, indices, 2, stride, output_size=size)
    with deterministic("off"):
        theirs = with_gradient(lambda x: unpool(x, indices, 2, stride, output_size=size), pooled)
    assert_same_bits(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int64])
@pytest.mark.parametrize(("values", "least"), [([0, 3, 3, 1], 0), ([0, 3, 3], 9), ([], 0), ([], 2)])
def test_bincount_does_as_torch_does(values: list[int], least: int, dtype: torch.dtype) -> None:
    bins = torch.tensor(values, dtype=torch.int64)
    weights = torch.rand(len(values)).mul(9).to(dtype)
    ours = deterministic_bincount(bins, weights, least)
    assert ours.tolist() == torch.bincount(bins, weights, least).tolist()
    if values:
        assert ours.dtype == torch.bincount(bins, weights, least).dtype


def test_bincount_refuses_what_are_no_bins() -> None:
    for bins in (torch.tensor([-1]), torch.tensor([[1]]), torch.tensor([1, 2])):
        with pytest.raises(ArgumentInvalid):
            deterministic_bincount(bins, torch.ones(1))


@pytest.mark.parametrize(
    ("shape", "padding"),
    [((2, 3, 5), (2, 4)), ((2, 3, 4, 5), (1, 0, 3, 2)), ((1, 2, 3, 4, 5), (4, 1, 0, 3, 1, 2))],
)
def test_reflection_pad_does_as_torch_does(shape: Any, padding: Any) -> None:
    tensor = numbers(*shape)
    ours = with_gradient(lambda x: deterministic_reflection_pad(x, padding), tensor)
    theirs = with_gradient(lambda x: F.pad(x, padding, mode="reflect"), tensor)
    assert torch.equal(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1])


@pytest.mark.parametrize("padding", [(5, 0), (-1, 0), (1,), (1,) * 8])
def test_reflection_pad_refuses_what_it_cannot_reflect(padding: Any) -> None:
    with pytest.raises(ArgumentInvalid):
        deterministic_reflection_pad(numbers(2, 3, 5), padding)


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [-1, 0, 1])
def test_median_has_the_values_of_torch_and_always_the_same_index(dim: int, keepdim: bool) -> None:
    tensor = torch.tensor([[2.0, 1, 1, 5], [4, float("nan"), 0, 4], [3, 3, 3, 3]])
    ours = deterministic_median(tensor, dim, keepdim=keepdim)
    theirs = torch.median(tensor, dim, keepdim=keepdim)
    assert torch.equal(ours.values.nan_to_num(99), theirs.values.nan_to_num(99))
    places = ours.indices if keepdim else ours.indices.unsqueeze(dim)
    found = tensor.gather(dim, places).nan_to_num(99)
    assert torch.equal(found, ours.values.nan_to_num(99).view(found.shape))
    if dim != 0:
        assert ours.indices.flatten().tolist() == [2, 1, 1]


def test_median_takes_scalars_and_has_a_gradient() -> None:
    assert deterministic_median(torch.tensor(3.0)).values == 3
    gradcheck(lambda x: deterministic_median(x, 0).values, numbers(4, 3))
    with pytest.raises(IndexError):
        deterministic_median(torch.zeros(2, 0))


@pytest.mark.parametrize("sizes", [(1,), (3,), (7,), (2, 3), (5, 8), (1, 1), (2, 2, 3)])
def test_adaptive_pooling_does_as_torch_does_but_for_rounding(sizes: tuple[int, ...]) -> None:
    theirs: Any = getattr(F, f"adaptive_avg_pool{len(sizes)}d")
    tensor = numbers(2, 3, *(5, 7, 4)[: len(sizes)])
    torch.testing.assert_close(
        with_gradient(lambda x: deterministic_adaptive_avg_pool(x, sizes), tensor),
        with_gradient(lambda x: theirs(x, sizes), tensor),
    )


def test_adaptive_pooling_refuses_a_size_of_nothing() -> None:
    with pytest.raises(ArgumentInvalid):
        deterministic_adaptive_avg_pool(numbers(2, 3), (0,))


def test_indexing_in_place_of_index_select_is_no_cure_on_the_cpu() -> None:
    # The well-known replacement, which adds in parallel unless deterministic mode is on.
    values = torch.randn(20_000, 8)
    wanted = torch.arange(20_000) % 10

    def gradients(select: Callable[[Tensor], Tensor]) -> set[bytes]:
        tensor = torch.zeros(10, 8, requires_grad=True)
        found = set()
        for _ in range(8):
            (gradient,) = torch.autograd.grad(select(tensor), tensor, values)
            found.add(gradient.numpy().tobytes())
        return found

    with deterministic("off", threads=2):
        assert len(gradients(lambda x: deterministic_index_select(x, 0, wanted))) == 1
    with deterministic("strict", threads=2):
        assert len(gradients(lambda x: x[wanted])) == 1
