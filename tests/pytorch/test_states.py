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


def test_a_reading_that_looks_at_little_sees_every_draw() -> None:
    watching = Generators()
    nothing: Callable[[], object] = lambda: None  # noqa: E731
    for number, draw in enumerate([*DRAWS, *DRAWS[::-1], nothing]):
        draw()
        first, again = watching.read(), watching.read()
        fresh = Generators().read()
        assert first.by_name() == again.by_name() == fresh.by_name(), number
        assert first.cell() == again.cell() == fresh.cell(), number


def test_what_has_not_changed_is_not_read_again() -> None:
    watching = Generators()
    torch.manual_seed(0)
    random.seed(0)  # which keeps no second value back
    watching.read()
    assert watching.read() is watching.read()


def test_a_state_that_is_put_back_is_seen() -> None:
    watching = Generators()
    torch.manual_seed(0)
    state, before = torch.get_rng_state(), watching.read().by_name()
    torch.randn(700)
    assert watching.read().by_name() != before
    torch.set_rng_state(state)
    assert watching.read().by_name() == before


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
