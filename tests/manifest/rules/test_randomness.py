"""Entropy, seeds, generators, and what a step sums over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from manifest.diffing import diff_sections

Impacts = Callable[..., dict[str, str]]
Sections = dict[str, dict[str, Any]]


def seeds(entropy: str, draws: dict[str, int] | None = None, **more: Any) -> Sections:
    return {"seeds": {"entropy": entropy, **({} if draws is None else {"draws": draws}), **more}}


def test_entropy_that_was_drawn_from_changes_results_and_can_be_repeated() -> None:
    before, after = seeds("aa", {"numpy.random": 3}), seeds("bb", {"numpy.random": 3})
    (found,) = diff_sections(before, after)
    assert found.impact == "certain"
    assert "manifest run --like" in found.reason


@pytest.mark.parametrize("draws", [{}, {"torch": 0, "python.random": 0}])
def test_entropy_that_nobody_drew_from_changes_nothing(
    impacts: Impacts, draws: dict[str, int]
) -> None:
    assert impacts(seeds("aa", draws), seeds("bb", draws)) == {"entropy": "informational"}


def test_entropy_that_only_gave_start_states_matters_unless_the_program_seeds(
    impacts: Impacts,
) -> None:
    draws = {"python.random": 1, "numpy.random": 1, "torch": 1}
    assert impacts(seeds("aa", draws), seeds("bb", draws)) == {"entropy": "possible"}
    unseeded = seeds("aa", draws, calls={}), seeds("bb", draws, calls={})
    assert impacts(*unseeded) == {"entropy": "certain"}
    calls = {"t.py:1 torch.manual_seed": 0}
    assert impacts(seeds("aa", draws, calls=calls), seeds("bb", draws, calls=calls)) == {
        "entropy": "possible"
    }


def test_entropy_whose_use_was_not_recorded_can_change_results(impacts: Impacts) -> None:
    assert impacts(seeds("aa"), seeds("bb")) == {"entropy": "possible"}


def test_where_entropy_was_taken_over_from_is_no_difference(impacts: Impacts) -> None:
    assert impacts(seeds("aa", entropy_from=None), seeds("aa", entropy_from="x")) == {}


def test_another_seed_at_one_place_changes_results(impacts: Impacts) -> None:
    assert impacts(seeds("aa", calls={"t.py:3": 1}), seeds("aa", calls={"t.py:3": 2})) == {
        "calls.t.py:3": "certain"
    }


def test_the_same_seed_from_another_line_changes_nothing(impacts: Impacts) -> None:
    found = impacts(seeds("aa", calls={"t.py:3": 1}), seeds("aa", calls={"t.py:4": 1}))
    assert set(found.values()) == {"informational"}


def generators(state: str, digest: str = "d", kind: str = "python") -> Sections:
    return {"generators": {"python": {"kind": kind, "state": {"$bytes": state}, "digest": digest}}}


def test_a_generator_is_its_state_and_not_the_digest_of_it(impacts: Impacts) -> None:
    assert impacts(generators("AA==", "xxh3:1"), generators("AA==", "blake2:2")) == {}
    assert impacts(generators("AA=="), generators("AQ==")) == {"python": "certain"}


def test_a_start_state_matters_less_where_the_program_seeds(impacts: Impacts) -> None:
    seeded = seeds("aa", calls={"t.py:3": 1})
    assert impacts(generators("AA==") | seeded, generators("AQ==") | seeded) == {
        "python": "possible"
    }


def test_a_hash_seed_that_was_taken_from_entropy_can_be_repeated() -> None:
    before, after = seeds("aa", {}, hash_seed="1"), seeds("bb", {}, hash_seed="2")
    found = {each.key: each for each in diff_sections(before, after)}["hash_seed"]
    assert (found.impact, "manifest run --like" in found.reason) == ("possible", True)
    (set_by_hand,) = diff_sections(before, seeds("aa", {}, hash_seed="2"))
    assert "--like" not in set_by_hand.reason


def test_one_state_of_a_device_is_one_however_it_is_described(impacts: Impacts) -> None:
    state = {"kind": "torch.cuda", "state": {"$bytes": "AQ=="}}
    described = {**state, "seed": 1, "offset": 0}
    other = {**described, "state": {"$bytes": "AgAA"}, "seed": 2}
    one, again, two = ({"generators": {"torch.cuda.0": it}} for it in (state, described, other))
    assert impacts(one, again) == {}
    assert impacts(again, two) == {"torch.cuda.0": "certain"}
