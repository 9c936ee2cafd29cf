"""A golden read back says what was written, and what is none is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifest.errors import GoldenInvalid
from manifest.goldens.texts import read, written
from manifest.goldens.watching import parting
from manifest.trail import Trail, TrailWriter

NAMES = tuple(f"{number}.weight" for number in range(100))
SETTINGS = {"settings": {"torch.num_threads": 2}}


def digest(*values: int) -> bytes:
    return bytes(values).ljust(16, b"\7")


@pytest.fixture
def trail_of(tmp_path: Path) -> Callable[..., Trail]:
    def trail_of(name: str, *, steps: int = 20, changed: int = 100, of: int = 0) -> Trail:
        writer = TrailWriter(tmp_path / f"{name}.bin")
        for step in range(steps):
            after = int(step >= changed)
            writer.append(
                digest(9),
                bytes(16),
                digest(1, step),
                digest(2, step),
                digest(step, after),
                number=step / 3,
            )
            tensors = [digest(step, number, after * (number >= of)) for number in range(len(NAMES))]
            writer.append_leaves(step, "param", NAMES, tensors)
            writer.append_leaves(step, "rng", ("torch.cpu",), [digest(9)])
        writer.close()
        return Trail.open(tmp_path / f"{name}.bin")

    return trail_of


def test_what_is_read_is_what_was_written(trail_of: Callable[..., Trail]) -> None:
    text = written("test_it.py::test_it", trail_of("a"), SETTINGS)
    golden = read(text)
    assert golden.test == "test_it.py::test_it"
    assert golden.settings == SETTINGS
    assert golden.trail.streams() == ("rng", "loss", "grad", "param")
    assert golden.trail.digest(3, "loss") == digest(1, 3)[:6].ljust(16, b"\0")
    assert written(golden.test, golden.trail, SETTINGS).count("\n") == text.count("\n")


def test_losses_stand_in_it_for_people(trail_of: Callable[..., Trail]) -> None:
    steps = json.loads(written("t", trail_of("a"), {}))["steps"]
    assert [line.split()[1] for line in steps[:2]] == ["0.0", repr(1 / 3)]


def test_of_many_tensors_only_some_steps_are_kept(trail_of: Callable[..., Trail]) -> None:
    golden = read(written("t", trail_of("a"), {}))
    assert golden.trail.leaves.steps("param") == [0, 1, 2, 3, 4, 5, 8, 16]
    assert golden.trail.leaves.steps("rng") == [0], "what has not changed is not said again"


def test_the_first_step_and_tensor_that_differ_are_found(trail_of: Callable[..., Trail]) -> None:
    one, other = (
        read(written("t", trail, {})) for trail in (trail_of("a"), trail_of("b", changed=4, of=98))
    )
    assert parting(one, one) is None
    said = parting(one, other)
    assert said is not None
    assert said.startswith("equal to step 3; at step 4 ")
    assert "the parameter `98.weight` and 1 more differ" in said


def test_one_that_goes_on_is_another(trail_of: Callable[..., Trail]) -> None:
    one, other = (
        read(written("t", trail, {})) for trail in (trail_of("a"), trail_of("b", steps=21))
    )
    assert parting(one, other) == "it made 21 steps, of which the golden has 20"


def test_digests_made_otherwise_are_not_compared(trail_of: Callable[..., Trail]) -> None:
    text = written("t", trail_of("a"), {})
    with pytest.raises(GoldenInvalid, match="its digests are other, not"):
        parting(read(text.replace("xxh3-128+ml32x2", "other")), read(text))


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"schema": None},
        {"settings": {"settings": 3}},
        {"settings": []},
        {"steps": ["0 1 2"]},
        {"steps": ["1 0.0 - - - - -"]},
        {"steps": ["0 0.0 - - - - nothing"]},
        {"steps": ["0 0.0 - - - - abc"]},
        {"steps": ["0 0.0 - - - - 123412341234123412341234"]},
        {"steps": [1]},
        {"tensors": [{"names": ["a"], "grad": ["0 abcdef abcdef"]}]},
        {"tensors": [{"names": ["a"], "grad": ["-1 abcdef"]}]},
        {"tensors": [{"names": ["a"], "grad": [f"{2**70} abcdef"]}]},
        {"tensors": [{"grad": ["0 abcdef"]}]},
        {"tensors": 1},
    ],
)
def test_what_is_no_golden_is_refused(change: dict[str, Any]) -> None:
    document = {"schema": 1, "test": "t", "algorithm": "x", "settings": {}, "steps": []}
    assert read(json.dumps({**document, "tensors": []})).trail.steps == 0
    with pytest.raises(GoldenInvalid):
        read(json.dumps({**document, "tensors": [], **change}))


@pytest.mark.parametrize("text", ["", "[]", "3", "<<<<<<< HEAD\n{}", '{"schema": 1}', "[" * 10_000])
def test_any_text_is_refused(text: str) -> None:
    with pytest.raises(GoldenInvalid):
        read(text)
