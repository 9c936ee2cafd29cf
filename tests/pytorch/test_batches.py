"""Fingerprints of batches: equal where the batches are, whatever they are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from manifest.pytorch.batches import Gathering


@dataclass
class Sample:
    image: Tensor
    label: int


def digest_of(*values: object) -> bytes:
    gathering = Gathering()
    for value in values:
        gathering.add(value)
    taken = gathering.take()
    assert isinstance(taken, list)
    return taken[0]


def test_batches_of_any_nesting_are_told_apart() -> None:
    one, two = torch.ones(1), torch.zeros(1)
    different: list[object] = [
        [one, two],
        [two, one],
        [[one], two],
        [one, [two]],
        [],
        [[]],
        {"a": one, "b": two},
        {"a": two, "b": one},
        {"b": one, "a": two},
        Sample(one, 1),
        Sample(one, 2),
        np.zeros(2),
        np.zeros(2, dtype=np.float32),
        np.zeros((2, 1)),
        "ab",
        b"ab",
        ["a", "b"],
        1,
        1.0,
        True,
        None,
        {"a", "b"},
        {"a", "c"},
        [object(), 1],
        -0.0,
        0.0,
    ]
    assert len({digest_of(value) for value in different}) == len(different)


@dataclass
class Wrapped:
    inner: object


def test_a_batch_whose_content_is_hidden_is_not_called_seen() -> None:
    hidden: list[object] = [object(), [object()], {"a": object()}, Wrapped(object())]
    gathering = Gathering()
    for value in hidden:
        gathering.add(value)
        assert gathering.take() is None
    gathering.add([*hidden, 1])
    assert gathering.take() == [digest_of([*hidden, 1])]


def test_equal_batches_have_equal_digests() -> None:
    values: list[Callable[[], object]] = [
        lambda: [torch.ones(2), {"a": np.arange(3)}, "text"],
        lambda: Sample(torch.zeros(1), 3),
        lambda: (1, 2.5, None, object()),
        lambda: np.arange(6).reshape(2, 3).T,
    ]
    for make in values:
        assert digest_of(make()) == digest_of(make())


def test_a_batch_that_contains_itself_ends() -> None:
    batch: list[object] = [1]
    batch.append(batch)
    assert len(digest_of(batch)) == 16
