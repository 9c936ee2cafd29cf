"""States that are read where they lie in memory are those that the public functions give."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from manifest import states
from manifest.pytorch.states import Copy, Generators


def public() -> dict[str, Any]:
    return {
        "python": states.python_state(random),
        "numpy.legacy": states.legacy_state(np.random),
        "torch.cpu": states.torch_state(torch.default_generator),
    }


DRAWS: list[Callable[[], object]] = [
    lambda: random.seed(1),
    random.random,
    lambda: random.gauss(0, 1),
    lambda: random.gauss(0, 1),
    lambda: np.random.seed(2),
    np.random.random,
    np.random.standard_normal,
    np.random.standard_normal,  # only takes what was kept back
    lambda: np.random.random(624),
    lambda: np.random.bytes(4 * 624),  # after which it stands where it stood
    lambda: random.getrandbits(32 * 624),
    lambda: torch.manual_seed(3),
    lambda: torch.randn(3),
    lambda: torch.rand(2000),
]


def in_form(copies: dict[str, Copy]) -> dict[str, bytes]:
    return {name: form(copied) for name, (form, copied) in copies.items()}


def test_copies_are_of_their_moment_whatever_is_drawn_later() -> None:
    generators = Generators()
    taken = []
    for draw in DRAWS:
        draw()
        taken.append((generators.copies(), public()))
    for number, (copies, expected) in enumerate(taken):
        assert in_form(copies) == expected, number


def test_states_follow_a_generator_that_is_put_in_the_place_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generators = Generators()
    generators.copies()
    monkeypatch.setattr(random, "_inst", random.Random(5))
    copies = in_form(generators.copies())
    assert copies["python"] == states.python_state(random.Random(5))


def test_reading_states_draws_nothing() -> None:
    before = public()
    Generators().copies()
    assert public() == before
