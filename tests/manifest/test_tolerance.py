"""Within a tolerance or not: numbers of two runs whose bits differ."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifest.canonical import canonical_bytes
from manifest.models import Tolerance
from manifest.numbers import Sample
from manifest.streams import UNOBSERVED
from manifest.tolerance import compare_numbers, explanation
from manifest.trail import Trail, TrailWriter

Losses = Sequence[float | None]


def sample(*values: float) -> Sample:
    return Sample(
        norm=math.hypot(*values),
        size=len(values),
        elements=struct.pack(f"<{len(values)}d", *values),
    )


def make(folder: Path, losses: Losses, samples: dict[str, Sample] | None = None) -> Trail:
    path = folder / f"{len(list(folder.glob('*.bin')))}.bin"
    writer = TrailWriter(path)
    for loss in losses:
        writer.append(*[UNOBSERVED] * 5, number=loss)
    writer.close(samples=samples)
    return Trail.open(path)


def compared(before: Trail, after: Trail, *, rtol: float = 0.0, atol: float = 0.0) -> Tolerance:
    found = compare_numbers({"main": before}, {"main": after}, rtol=rtol, atol=atol)
    # What is said of it can be kept, and read again.
    content = found.model_dump(mode="json")
    canonical_bytes(content)
    assert Tolerance.model_validate(content).model_dump_json() == found.model_dump_json()
    return found


def test_numbers_close_enough_are_within(tmp_path: Path) -> None:
    before, after = make(tmp_path, [1.0, 2.0, 4.0]), make(tmp_path, [1.0, 2.002, 4.0])
    found = compared(before, after, rtol=1e-2)
    assert found.is_within
    assert (found.steps, found.tensors) == (3, 0)
    assert explanation(found) == (
        "the loss of 3 steps agree within rtol 0.01, atol 0; farthest apart: loss at step 1, "
        "2 and 2.002, relative 0.001"
    )
    assert compared(before, after, atol=0.0021).is_within
    found = compared(before, after, rtol=1e-4, atol=1e-3)
    assert not found.is_within
    assert explanation(found).startswith("beyond rtol 0.0001, atol 0.001: loss at step 1, 2 and")


def test_the_first_that_is_beyond_is_named_and_the_farthest(tmp_path: Path) -> None:
    before, after = make(tmp_path, [1.0] * 4), make(tmp_path, [1.0, 1.1, 3.0, 1.0])
    found = compared(before, after, rtol=1e-3)
    assert found.exceeded is not None
    assert found.largest is not None
    assert (found.exceeded.step, found.largest.step) == (1, 2)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_a_loss_that_only_one_run_lost_is_beyond_any_tolerance(tmp_path: Path, odd: float) -> None:
    before, after = make(tmp_path, [1.0, odd]), make(tmp_path, [1.0, 1.0])
    assert not compared(before, after, rtol=1e300, atol=1e300).is_within
    assert compared(before, before).is_within


def test_what_was_not_observed_is_not_compared(tmp_path: Path) -> None:
    before, after = make(tmp_path, [1.0, None, 1.0]), make(tmp_path, [1.0, 9.0, None])
    assert compared(before, after).steps == 1
    nothing = compared(make(tmp_path, []), make(tmp_path, [1.0]), rtol=1.0)
    assert not nothing.is_within
    assert explanation(nothing).startswith("no numbers were recorded in both runs")


def test_elements_of_a_parameter_are_compared_together(tmp_path: Path) -> None:
    before = make(tmp_path, [], {"w": sample(1.0, 1.0, 1e-9), "v": sample(1.0)})
    after = make(tmp_path, [], {"w": sample(1.0, 1.001, -1e-9), "x": sample(1.0)})
    assert compared(before, after, rtol=1e-3).is_within
    found = compared(before, after, rtol=1e-4)
    assert found.tensors == 1
    assert found.exceeded is not None
    assert (found.exceeded.name, found.exceeded.step) == ("w", None)
    assert "parameter `w` at the end, relative 0.0007" in explanation(found)


def test_a_change_outside_the_sample_shows_in_the_norm(tmp_path: Path) -> None:
    whole = sample(1.0, 1.0)
    before = make(tmp_path, [], {"w": whole})
    after = make(tmp_path, [], {"w": Sample(norm=9.0, size=2, elements=whole.elements)})
    assert not compared(before, after, rtol=0.1).is_within


def test_parameters_of_another_size_are_beyond_any_tolerance(tmp_path: Path) -> None:
    before = make(tmp_path, [], {"w": sample(1.0)})
    after = make(tmp_path, [], {"w": sample(1.0, 0.0)})
    assert not compared(before, after, rtol=1e300, atol=1e300).is_within


def test_parameters_after_another_number_of_steps_are_not_compared(tmp_path: Path) -> None:
    before = make(tmp_path, [1.0], {"w": sample(1.0)})
    after = make(tmp_path, [1.0, 1.0], {"w": sample(2.0)})
    assert compared(before, after).tensors == 0


@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=5), st.floats(0, 2), st.floats(0, 2))
def test_losses_agree_as_isclose_says(
    tmp_path_factory: pytest.TempPathFactory,
    pairs: list[tuple[float, float]],
    rtol: float,
    atol: float,
) -> None:
    folder = tmp_path_factory.mktemp("trails")
    before, after = (make(folder, [pair[side] for pair in pairs]) for side in (0, 1))
    found = compared(before, after, rtol=rtol, atol=atol)
    back = compared(after, before, rtol=rtol, atol=atol)
    assert found.is_within == back.is_within
    expected = [
        math.isclose(a, b, rel_tol=rtol, abs_tol=atol) or (math.isnan(a) and math.isnan(b))
        for a, b in pairs
    ]
    # Beside the limit itself, where one rounds before the other.
    near = any(abs(abs(a - b) / max(abs(a), abs(b), 1e-300) - rtol) < 1e-12 for a, b in pairs)
    assert near or found.is_within == (all(expected) and bool(pairs))
