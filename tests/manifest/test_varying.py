"""What varies among several runs."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from manifest.canonical import ABSENT
from manifest.conclusion import conclude
from manifest.diffing import diff
from manifest.models import SECTIONS, Manifest
from manifest.varying import diff_many

Sections = dict[str, dict[str, Any]]


def manifests(*runs: Sections) -> list[Manifest]:
    return [
        Manifest(
            schema=1,
            id=f"01900000-0000-7000-8000-{number:012x}",
            project="digits",
            status="finished",
            started_at="2026-01-01T00:00:00Z",
            mode="run",
            sections=sections,
        )
        for number, sections in enumerate(runs)
    ]


def test_many_runs_give_one_value_each_for_what_varies() -> None:
    found = diff_many(
        manifests(
            {"config": {"lr": 1, "seed": 0}, "settings": {"torch.num_threads": 2}},
            {"config": {"lr": 1, "seed": 1}, "settings": {"torch.num_threads": 2}},
            {"config": {"lr": 2, "seed": 0}, "settings": {}},
        )
    )
    assert [(each.section, each.key, each.values, each.were_captured) for each in found] == [
        ("config", "lr", (1, 1, 2), (True, True, True)),
        ("config", "seed", (0, 1, 0), (True, True, True)),
        ("settings", "torch.num_threads", (2, 2, None), (True, True, False)),
    ]
    assert [each.impact for each in found] == ["possible", "possible", "unknown"]


def test_one_run_or_none_varies_in_nothing() -> None:
    assert diff_many([]) == diff_many(manifests({"config": {"a": 1}})) == []


def test_the_impact_is_the_gravest_and_the_reason_is_that_of_its_pair() -> None:
    first, unknown, other = {"torch.num_threads": 2}, dict[str, Any](), {"torch.num_threads": 1}
    for runs in ([first, unknown, other], [first, other, unknown]):
        (found,) = diff_many(manifests(*({"settings": settings} for settings in runs)))
        assert found.impact == "certain"
        assert found.reason.startswith("Sums and matrix products")
        assert found.source


def test_a_reason_does_not_count_runs() -> None:
    known, unknown = {"a": 1, "torch.num_threads": 1}, {"a": 1}
    for runs in ([known, unknown, unknown], [unknown, unknown, known]):
        (found,) = diff_many(manifests(*({"settings": settings} for settings in runs)))
        assert found.reason.startswith("not captured in some runs, so whether")


def test_not_captured_absent_and_redacted_stay_apart() -> None:
    values: list[dict[str, Any]] = [{"k": 1}, {}, {"k": ABSENT}, {"k": {"$redacted": "aa"}}]
    (found,) = diff_many(manifests(*({"settings": each} for each in values)))
    assert found.values == (1, None, ABSENT, {"$redacted": "aa"})
    assert found.were_captured == (True, False, True, True)


def test_a_run_without_a_loader_has_none_of_its_facts() -> None:
    found = diff_many(
        manifests(
            {"loaders": {"loader.0": {"batch_size": 8}}},
            {"loaders": {"loader.0": {"batch_size": 4}}},
            {"loaders": {}},
            {"loaders": {"loader.1": {"batch_size": 1}}},
        )
    )
    rows = {each.key: each for each in found}
    assert rows["loader.0.batch_size"].values == (8, 4, None, ABSENT)
    assert rows["loader.0.batch_size"].were_captured == (True, True, False, True)
    assert rows["loader.1"].values[:2] == (ABSENT, ABSENT)


def test_what_varies_amounts_to_a_sentence() -> None:
    runs = manifests(*({"settings": {"torch.num_threads": count}} for count in (1, 2, 3)))
    assert conclude(diff_many(runs)).startswith("1 difference changes results: torch.num_threads;")


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-1, 1), st.floats(), st.just(ABSENT)),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=5,
)
RUNS = st.lists(
    st.dictionaries(
        st.sampled_from(SECTIONS), st.dictionaries(st.sampled_from("abc"), VALUES), max_size=4
    ),
    max_size=4,
)


@given(RUNS)
def test_what_varies_has_a_value_for_each_run(runs: list[Sections]) -> None:
    for variation in diff_many(manifests(*runs)):
        assert len(variation.values) == len(variation.were_captured) == len(runs)


@given(RUNS)
def test_two_of_many_vary_as_two_alone(runs: list[Sections]) -> None:
    pair = manifests(*[*runs, {}, {}][:2])
    alone = diff(*pair).differences
    together = diff_many(pair)
    assert [(each.section, each.key, each.impact) for each in together] == [
        (each.section, each.key, each.impact) for each in alone
    ]
    assert repr([each.values for each in together]) == repr(
        [(each.before, each.after) for each in alone]
    )


@given(RUNS)
def test_runs_that_are_all_the_same_vary_in_nothing(runs: list[Sections]) -> None:
    assert diff_many(manifests(*(copy.deepcopy(run) for run in runs[:1] * 3))) == []
