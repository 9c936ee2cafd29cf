"""Generators of the program's own: every draw from one is seen, and found by its name."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD

from manifest.comparing import compare_trails
from manifest.pytorch.states import Generators
from manifest.pytorch.watching import Watcher
from manifest.trail import Trail

OWN: dict[str, tuple[Any, Callable[[Any], object]]] = {
    "Random": (random.Random(5), lambda g: g.random()),
    "second normal": (random.Random(5), lambda g: g.gauss(0, 1)),
    "torch": (torch.Generator(), lambda g: torch.rand(1, generator=g)),
    "second normal of torch": (torch.Generator(), lambda g: torch.randn(1, generator=g)),
    "PCG64": (np.random.default_rng(5), lambda g: g.random()),
    "half a word": (np.random.default_rng(5), lambda g: g.integers(9, dtype=np.uint32)),
    "RandomState": (np.random.RandomState(5), lambda g: g.rand()),
    "bits": (np.random.Philox(5), lambda g: g.random_raw()),
}


@pytest.mark.parametrize("kind", OWN)
def test_every_draw_from_a_generator_of_the_programs_own_is_seen(kind: str) -> None:
    generator, draw = OWN[kind]
    generators = Generators(lambda: [("own", generator)])
    seen = set()
    for _ in range(5):
        assert generators.read().cell() == generators.read().cell()
        seen.add(generators.read().by_name()["own"])
        draw(generator)
    assert len(seen) == 5
    cell = generators.read().cell()
    assert cell[8:] != bytes(8)
    generators.let_go()
    assert generators.read().cell() == cell[:8] + bytes(8)


def test_a_subclass_with_a_state_of_its_own_is_read_as_it_says() -> None:
    class Counted(random.Random):
        def getstate(self) -> Any:
            return (3, (7,) * 625, None)

    generators = Generators(lambda: [("own", Counted())])
    assert generators.read().own_digests == generators.read().own_digests


def train_and_draw(
    folder: Path, *, names: tuple[str, ...] = ("a", "b"), extra_at: int | None = None
) -> Trail:
    """Three generators made anew at each call, of which the second draws once more at a step."""
    made = {name: torch.Generator().manual_seed(5) for name in names}
    folder.mkdir()
    path = folder / "main.bin"
    watcher = Watcher(lambda: path, on_note=print, own_generators=lambda: list(made.items()))
    watcher.install()
    weight = nn.Parameter(torch.ones(2))
    optimizer = SGD([weight], lr=0.5)
    for step in range(100):
        for generator in made.values():
            torch.rand(1, generator=generator)
        if step == extra_at:
            torch.rand(1, generator=made["b"])
        optimizer.step()
    if extra_at is None:
        del made[names[-1]], generator
        optimizer.step()
    watcher.finish()
    return Trail.open(path)


def test_an_extra_draw_from_a_generator_of_the_programs_own_is_found(tmp_path: Path) -> None:
    before = train_and_draw(tmp_path / "before")
    again = train_and_draw(tmp_path / "again")
    assert compare_trails({"main": before}, {"main": again}).divergence is None
    assert before.leaves.names("own") == [(0, {"a", "b"}), (100, {"a"})]
    assert before.final is not None
    assert "a" in before.final.rng
    other = train_and_draw(tmp_path / "other", extra_at=81)
    found = compare_trails({"main": before}, {"main": other}).divergence
    assert found is not None
    assert (found.step, found.stream, found.tensors) == (81, "rng", ("b",))
    named_otherwise = train_and_draw(tmp_path / "named", names=("b", "c"), extra_at=81)
    found = compare_trails({"main": before}, {"main": named_otherwise}).divergence
    assert found is None


def test_generators_are_asked_for_anew_when_there_may_be_more(tmp_path: Path) -> None:
    own: list[tuple[str, object]] = []
    path = tmp_path / "main.bin"
    watcher = Watcher(lambda: path, on_note=print, own_generators=lambda: own)
    watcher.install()
    optimizer = SGD([nn.Parameter(torch.ones(2))], lr=0.5)
    optimizer.step()
    own.append(("late", random.Random(5)))
    optimizer.step()
    watcher.look_for_generators()
    optimizer.step()
    watcher.finish()
    assert Trail.open(path).leaves.names("own") == [(2, {"late"})]
