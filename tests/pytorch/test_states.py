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


def test_reading_generators_draws_nothing_and_sees_every_draw() -> None:
    generators = Generators()
    before = generators.read().by_name()
    assert generators.read().by_name() == before
    draws: dict[str, Callable[[], object]] = {
        "python": random.random,
        "numpy.legacy": np.random.rand,
        "torch.cpu": lambda: torch.rand(1),
    }
    for name, draw in draws.items():
        draw()
        after = generators.read().by_name()
        assert [key for key in after if after[key] != before[key]] == [name]
        before = after


def test_states_read_from_memory_are_those_of_the_public_functions() -> None:
    fast, slow = Generators(), Generators()
    expected = slow.read().by_name()
    assert slow._python is not None
    assert slow._numpy is not None
    slow._python._words = slow._python._slow_words
    slow._numpy._words, slow._numpy._kept = slow._numpy._slow_words, slow._numpy._slow_kept
    assert fast.read().by_name() == slow.read().by_name() == expected
    random.gauss(0, 1)
    np.random.randn()
    found = fast.read().by_name()
    assert found == slow.read().by_name()
    assert [name for name in found if found[name] != expected[name]] == ["python", "numpy.legacy"]


def test_a_draw_that_numpy_had_kept_back_is_seen() -> None:
    np.random.seed(0)
    np.random.randn()
    generators = Generators()
    before = generators.read().by_name()
    np.random.randn()
    assert generators.read().by_name()["numpy.legacy"] != before["numpy.legacy"]


def test_another_bit_generator_of_numpy_is_seen() -> None:
    generators = Generators()
    legacy: Any = np.random
    before = legacy.get_bit_generator()
    legacy.set_bit_generator(np.random.PCG64(0))
    try:
        first = generators.read().by_name()["numpy.legacy"]
        assert generators.read().by_name()["numpy.legacy"] == first
        np.random.rand()
        assert generators.read().by_name()["numpy.legacy"] != first
    finally:
        legacy.set_bit_generator(before)
