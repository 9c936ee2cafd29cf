"""States of generators: captured without drawing, put back bit for bit, refused when malformed."""

from __future__ import annotations

import base64
import random
from typing import Any

import numpy as np
import numpy.random  # NumPy imports it, and seeds it, at first use
import pytest
import torch

from manifest.errors import StateNotRestorable
from manifest.generators import capture_generators, restore_generators


def draws() -> list[Any]:
    return [
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.randn(),
        torch.rand(1).item(),
        torch.randn(3).tolist(),
        torch.randn(20).tolist(),
    ]


@pytest.mark.parametrize("before", range(4))
def test_restored_generators_draw_the_same_numbers(before: int) -> None:
    for _ in range(before):
        draws()
    state = capture_generators()
    first = draws()
    report = restore_generators(state)
    assert draws() == first
    assert {report[name] for name in ("python", "numpy.legacy", "torch.cpu")} == {"restored"}


def test_capture_draws_nothing() -> None:
    assert capture_generators() == capture_generators()
    first = capture_generators()
    random.random()
    assert capture_generators() != first, "the neighbour that draws is seen"


def test_what_is_equal_already_is_not_touched() -> None:
    assert set(restore_generators(capture_generators()).values()) == {"equal already"}


def encoded(data: bytes) -> dict[str, Any]:
    return {"kind": "x", "state": {"$bytes": base64.b64encode(data).decode()}}


@pytest.mark.parametrize("name", ["python", "numpy.legacy", "torch.cpu", "torch.cuda.0", "evil"])
@pytest.mark.parametrize(
    "value",
    [
        encoded(b""),
        encoded(b"\xff" * 100),
        encoded(b"\xff" * 2509),
        {"state": {"$bytes": "not base64!"}},
        {"state": None},
        {},
        None,
        "text",
    ],
)
def test_a_malformed_state_is_refused_before_anything_is_set(name: str, value: Any) -> None:
    state = capture_generators()
    with pytest.raises(StateNotRestorable):
        restore_generators({**state, name: value})
    assert capture_generators() == state
