"""Doubt, secrets, and rules in general."""

from __future__ import annotations

from typing import Any

import pytest

from manifest.diffing import diff_sections
from manifest.judging import RULES
from manifest.models import Difference

Sections = dict[str, dict[str, Any]]


def impacts(before: Sections, after: Sections) -> dict[str, str]:
    there = diff_sections(before, after)
    back = diff_sections(after, before)
    found = {each.key: each.impact for each in there}
    assert found == {each.key: each.impact for each in back}
    return {key: str(impact) for key, impact in found.items()}


def only(before: Sections, after: Sections) -> Difference:
    (difference,) = diff_sections(before, after)
    return difference


def test_every_rule_says_what_it_is_about() -> None:
    rules = {rule for rules in RULES.values() for rule in rules}
    assert [rule.__name__ for rule in rules if not rule.__doc__] == []


def secrets(argument: str, **variables: str) -> Sections:
    return {
        "command": {"argv": ["t.py", {"$redacted": argument}]},
        "environment": {f"env.{name}": {"$redacted": text} for name, text in variables.items()},
    }


def test_secrets_that_may_be_kept_with_two_salts_cannot_be_compared() -> None:
    found = only(secrets("aa"), secrets("bb"))
    assert (found.key, found.impact) == ("argv", "unknown")
    assert "another secret, or the same one kept in another folder of runs" in found.reason


def test_secrets_compare_where_an_equal_one_shows_that_the_salt_is_one() -> None:
    assert impacts(secrets("aa", TORCH_KEY="cc"), secrets("bb", TORCH_KEY="cc")) == {
        "argv": "certain"
    }


def test_a_secret_beside_another_difference_hides_nothing() -> None:
    before = {"command": {"argv": ["t.py", "1", {"$redacted": "aa"}]}}
    after = {"command": {"argv": ["t.py", "2", {"$redacted": "bb"}]}}
    assert impacts(before, after) == {"argv": "certain"}


@pytest.mark.parametrize("key", ["gpu.0.name", "gpu.0.sm_count", "gpu.3.mig"])
def test_another_geometry_of_the_gpu_changes_results(key: str) -> None:
    assert impacts({"hardware": {key: "a"}}, {"hardware": {key: "b"}}) == {key: "certain"}


def test_what_could_not_be_read_has_an_unknown_effect() -> None:
    found = only(
        {"settings": {"torch.num_threads": {"$failed": "OSError: no"}}},
        {"settings": {"torch.num_threads": 2}},
    )
    assert found.impact == "unknown"
    assert found.reason.startswith(
        "could not be read, so whether the runs differ here is not known"
    )


def test_a_redacted_value_beside_a_plain_one_has_an_unknown_effect() -> None:
    found = impacts({"config": {"lr": {"$redacted": "aa"}}}, {"config": {"lr": "v"}})
    assert found == {"lr": "unknown"}
