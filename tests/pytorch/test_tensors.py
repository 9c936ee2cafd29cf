"""Fingerprints of tensors: equal for equal bits, different for anything else."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from manifest.pytorch.sums import device_sum, device_sums
from manifest.pytorch.tensors import (
    Watchpoints,
    fingerprint,
    fingerprint_many,
    number_and_fingerprint,
    start_reading,
)
from manifest.pytorch.transfers import Reading
from manifest.streams import UNOBSERVED

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.uint16,
    torch.int16,
    torch.uint32,
    torch.int32,
    torch.uint64,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]

bits = st.binary(min_size=1, max_size=64)


def tensor_of(content: bytes, dtype: torch.dtype) -> Tensor:
    size = torch.empty(0, dtype=dtype).itemsize
    return torch.frombuffer(bytearray(content * size), dtype=torch.uint8).view(dtype)


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@given(bits, st.sampled_from(DTYPES), st.data())
def test_any_flipped_bit_changes_the_fingerprint(
    content: bytes, dtype: torch.dtype, data: st.DataObject
) -> None:
    content *= torch.empty(0, dtype=dtype).itemsize
    bit = data.draw(st.integers(0, len(content) * 8 - 1))

    def digest(raw: bytes) -> bytes:
        return fingerprint(torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(dtype))

    assert digest(content) == digest(content)
    assert digest(content) != digest(flipped(content, bit))


@given(bits, st.data())
def test_any_flipped_bit_changes_the_sums_of_an_accelerator(
    content: bytes, data: st.DataObject
) -> None:
    bit = data.draw(st.integers(0, len(content) * 8 - 1))

    def sums(raw: bytes) -> list[int]:
        return list(device_sum(torch.frombuffer(bytearray(raw), dtype=torch.uint8)).tensor())

    assert sums(content) == sums(content)
    assert sums(content) != sums(flipped(content, bit))


def test_dtype_and_shape_count() -> None:
    zeros = [torch.zeros(6, dtype=dtype) for dtype in DTYPES]
    shapes = [(6,), (2, 3), (3, 2), (6, 1), (1, 6), (0,), (0, 6), (6, 0), ()]
    zeros += [torch.zeros(shape, dtype=torch.float64) for shape in shapes[1:]]
    digests = fingerprint_many(zeros)
    assert len(set(digests)) == len(zeros)
    assert all(len(digest) == 16 for digest in digests)


VIEWS: list[Callable[[Tensor], Tensor]] = [
    lambda x: x.t(),
    lambda x: x[::2, 1:],
    lambda x: x[1],
    lambda x: x[:1].expand(4, -1),
    lambda x: x.flip(0),
    lambda x: x[0, 0],
    lambda x: x[:0],
    lambda x: x.reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
]


@pytest.mark.parametrize("view", VIEWS)
def test_a_strided_view_equals_its_contiguous_twin(view: Callable[[Tensor], Tensor]) -> None:
    seen = view(torch.randn(6, 4))
    assert fingerprint(seen) == fingerprint(seen.contiguous().clone())


def test_a_view_into_the_middle_is_read_from_there() -> None:
    whole = torch.arange(10.0)
    assert fingerprint(whole[3:7]) == fingerprint(torch.tensor([3.0, 4.0, 5.0, 6.0]))


def test_conjugated_and_negated_views_equal_what_they_show() -> None:
    numbers = torch.randn(5, dtype=torch.complex64)
    assert fingerprint(numbers.conj()) == fingerprint(numbers.conj().resolve_conj())
    assert fingerprint(numbers.conj().imag) == fingerprint(-numbers.imag.contiguous())
    assert fingerprint(numbers.conj()) != fingerprint(numbers)


def test_signs_of_zero_and_payloads_of_nan_are_told_apart() -> None:
    words = [0x00000000, -0x80000000, 0x7FC00000, 0x7FC00001, -0x400000]
    floats = torch.tensor(words, dtype=torch.int32).view(torch.float32)
    assert len(set(fingerprint_many(list(floats)))) == len(words)


@pytest.mark.parametrize("value", [0.0, -0.0, 1.5, 1e-45, -3.4e38, math.inf, -math.inf])
def test_a_number_has_the_fingerprint_of_its_tensor(value: float) -> None:
    tensor = torch.tensor(value)
    assert number_and_fingerprint(tensor) == (tensor.item(), fingerprint(tensor))
    needs_grad = torch.tensor(value, requires_grad=True)
    assert number_and_fingerprint(needs_grad * 1) == (tensor.item(), fingerprint(tensor))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(math.nan),
        torch.tensor([1.0]),
        torch.tensor(1.0, dtype=torch.float64),
        torch.tensor(1),
        torch.empty((), device="meta"),
    ],
    ids=str,
)
def test_what_is_not_a_lone_number_is_not_read_as_one(tensor: Tensor) -> None:
    assert number_and_fingerprint(tensor) is None


def test_a_parameter_equals_its_data() -> None:
    parameter = torch.nn.Parameter(torch.randn(3))
    assert fingerprint(parameter) == fingerprint(parameter.detach())


class Tagged(Tensor):
    pass


def test_a_subclass_equals_its_elements() -> None:
    plain = torch.randn(3)
    assert fingerprint(plain.as_subclass(Tagged)) == fingerprint(plain)


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("transpose", [False, True])
def test_sparse_tensors_are_told_apart_by_value_and_place(transpose: bool) -> None:
    dense = torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.0, 3.0]])
    dense = dense.t().contiguous() if transpose else dense
    other_value, other_place = dense.clone(), dense.flip(0)
    other_value[dense == 1] = 4.0
    for convert in (Tensor.to_sparse, Tensor.to_sparse_csr, Tensor.to_sparse_csc):
        digests = fingerprint_many(
            [convert(dense), convert(other_value), convert(other_place), convert(dense.clone())]
        )
        assert digests[0] == digests[3]
        assert len(set(digests)) == 3


def test_an_uncoalesced_sparse_tensor_equals_its_coalesced_twin() -> None:
    twice = torch.sparse_coo_tensor(
        torch.tensor([[1, 0, 1]]), torch.tensor([1.0, 2.0, 3.0]), (3,), check_invariants=True
    )
    assert fingerprint(twice) == fingerprint(twice.coalesce())
    assert not twice.is_coalesced()


@pytest.mark.filterwarnings("ignore")
def test_quantized_tensors_are_told_apart_by_scale() -> None:
    values = torch.tensor([1.0, 2.0])
    digests = fingerprint_many(
        [torch.quantize_per_tensor(values * s, s, 0, torch.qint8) for s in (0.5, 0.25)]
        + [
            torch.quantize_per_channel(
                values * s, torch.tensor([s, s]), torch.zeros(2), 0, torch.qint8
            )
            for s in (0.5, 0.25)
        ]
    )
    assert len(set(digests)) == 4


@pytest.mark.filterwarnings("ignore")
def test_nested_tensors_are_the_same_in_either_layout() -> None:
    parts = [torch.randn(2, 3), torch.randn(4, 3)]
    strided = torch.nested.nested_tensor(parts)
    jagged = torch.nested.nested_tensor(parts, layout=torch.jagged)
    assert fingerprint(strided) == fingerprint(jagged)
    assert fingerprint(jagged) != fingerprint(torch.nested.nested_tensor(parts[::-1]))


def test_what_has_no_data_is_described() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    meta = torch.zeros(3, device="meta")
    with FakeTensorMode():
        fake = torch.zeros(3)
    freed = torch.zeros(3)
    freed.untyped_storage().resize_(0)
    shrunk = torch.zeros(3)
    shrunk.untyped_storage().resize_(8)
    digests = fingerprint_many([meta, fake, freed, shrunk])
    assert len(set(digests)) == 1
    assert digests[0] != fingerprint(torch.zeros(3))
    assert digests[0] != fingerprint(torch.zeros(4, device="meta"))


def test_nothing_is_drawn_and_nothing_changes() -> None:
    tensors = [torch.randn(100, 100), torch.randn(4, 4).t(), torch.eye(4).to_sparse()]
    copies = [tensor.clone() for tensor in tensors]
    before = (random.getstate(), repr(np.random.get_state()), torch.get_rng_state())
    fingerprint_many(tensors)
    device_sums(tensors[:2])
    after = (random.getstate(), repr(np.random.get_state()), torch.get_rng_state())
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])
    for tensor, copy in zip(tensors, copies, strict=True):
        assert torch.equal(tensor.to_dense(), copy.to_dense())


def test_sums_do_not_depend_on_who_is_summed_beside() -> None:
    # Long enough for several chunks, and for rows that are not full.
    tensors = [torch.randn(3), torch.randn(0), torch.randn(4096 * 4097 + 5), torch.randn(7, 9)]
    together = device_sums(tensors).tensor().view(-1, 2)
    for tensor, sums in zip(tensors, together, strict=True):
        assert torch.equal(device_sum(tensor).tensor(), sums)


def test_sums_depend_on_order_and_sign() -> None:
    numbers = torch.randn(5000, dtype=torch.float64)
    others = [numbers.flip(0), -numbers, numbers.roll(4096), numbers.roll(1)]
    sums = {tuple(row) for row in device_sums([numbers, *others]).tensor().view(-1, 2).tolist()}
    assert len(sums) == 5


def test_sums_of_odd_sizes_and_offsets_are_those_of_a_copy() -> None:
    octets = torch.arange(23, dtype=torch.uint8)
    for start, stop in ((1, 4), (3, 22), (0, 23)):
        part = octets[start:stop]
        assert torch.equal(device_sum(part).tensor(), device_sum(part.clone()).tensor())


def test_a_tensor_that_is_not_there_is_unobserved() -> None:
    weight = torch.randn(2)
    assert start_reading([None, weight]) == [UNOBSERVED, fingerprint(weight)]


@pytest.mark.gpu
def test_an_accelerator_is_read_without_waiting() -> None:
    weight = torch.randn(3, 4)
    for _ in range(2):  # by operations, then by the kernel
        reading = start_reading([weight.cuda(), weight])
        assert isinstance(reading, Reading)
        on_device, on_host = reading.wait()
        assert on_host == fingerprint(weight)
        assert on_device == fingerprint(weight.cuda())
        sums = device_sum(weight.cuda()).tensor()
        assert torch.equal(sums.cpu(), device_sum(weight).tensor())
        torch.cuda.synchronize()


def kinds_of_tensors() -> list[Tensor | None]:
    return [
        torch.randn(3, 4),
        torch.randn(4, 4).t(),
        torch.randn(6)[2:5],
        torch.randn(3, dtype=torch.complex64),
        torch.randn(3, dtype=torch.complex64).conj(),
        torch.eye(3).to_sparse(),
        torch.randn(0, 2),
        torch.empty(2, device="meta"),
        None,
        nn.Parameter(torch.randn(3)),
    ]


def test_watching_the_same_tensors_is_as_good_as_looking_anew() -> None:
    points = Watchpoints()
    for _ in range(3):
        tensors = kinds_of_tensors()
        for _ in range(2):
            assert points.start_reading(tensors) == start_reading(tensors)
    shifted = kinds_of_tensors()[1:]
    assert points.start_reading(shifted) == start_reading(shifted)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.data.zero_(),
        lambda t: setattr(t, "data", t.data.t()),
        lambda t: setattr(t, "data", t.data.view(8, 2)),
        lambda t: setattr(t, "data", torch.zeros(4, 4)),
        lambda t: setattr(t, "data", torch.zeros(17)[1:].view(4, 4)),
        lambda t: t.untyped_storage().resize_(0),
    ],
)
def test_a_watched_tensor_is_read_where_and_as_it_is_now(
    change: Callable[[Tensor], object],
) -> None:
    tensor = nn.Parameter(torch.randn(4, 4))
    points = Watchpoints()
    before = points.start_reading([tensor])
    assert points.start_reading([tensor]) == before
    change(tensor)
    assert points.start_reading([tensor]) == start_reading([tensor]) != before


def test_a_freed_storage_is_not_read_at_an_offset() -> None:
    storage = torch.randn(20)
    points = Watchpoints()
    tensor = storage[4:]
    assert points.start_reading([tensor]) == start_reading([tensor])
    storage.untyped_storage().resize_(0)
    assert points.start_reading([tensor]) == start_reading([tensor])
