from __future__ import annotations

import copy
import struct
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifest.canonical import ABSENT
from manifest.diffing import diff, diff_sections
from manifest.models import SECTIONS, Difference, Manifest, Process, TrailSummary

Sections = dict[str, dict[str, Any]]

A = "01900000-0000-7000-8000-00000000000a"
B = "01900000-0000-7000-8000-00000000000b"


def manifest(
    sections: Mapping[str, Any], *, run_id: str = A, processes: dict[str, Process] | None = None
) -> Manifest:
    return Manifest(
        schema=1,
        id=run_id,
        project="digits",
        status="finished",
        started_at="2026-01-01T00:00:00Z",
        mode="run",
        sections=dict(sections),
        processes=processes or {},
    )


def differences(before: Sections, after: Sections, **options: Any) -> tuple[Difference, ...]:
    return diff(manifest(before), manifest(after, run_id=B), **options).differences


def only(before: Sections, after: Sections, **options: Any) -> Difference:
    (difference,) = differences(before, after, **options)
    return difference


# What counts as a difference.


def test_equal_runs_have_no_difference() -> None:
    found = diff(
        manifest({"packages": {"torch": "2.13.0"}}), manifest({"packages": {"torch": "2.13.0"}})
    )
    assert (found.differences, found.conclusion) == ((), "No recorded difference.")
    assert found.compared == 1


def test_diff_ignores_the_order_of_packages() -> None:
    assert differences({"packages": {"a": "1", "b": "2"}}, {"packages": {"b": "2", "a": "1"}}) == ()


def test_ids_times_and_names_are_no_differences() -> None:
    before = manifest({"config": {"lr": 1}})
    after = before.model_copy(
        update={"id": B, "name": "again", "started_at": "2027-01-01T00:00:00Z", "exit_code": 0}
    )
    assert diff(before, after).differences == ()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (True, 1),
        (0, False),
        (1, 1.0),
        (0.0, -0.0),
        (0.1, 0.1 + 2**-56),
        ("1", 1),
        (None, False),
        ([], {}),
        ([1], [1.0]),
        ([1, 2], [2, 1]),
        ({"$float": "nan"}, {"$float": "inf"}),
        ({"$float": "nan"}, "nan"),
        ({"$int": "9007199254740993"}, {"$int": "9007199254740994"}),
        (ABSENT, {"$redacted": "aa"}),
        (ABSENT, None),
    ],
)
def test_values_differ_by_type_and_by_bits(before: object, after: object) -> None:
    difference = only({"settings": {"k": before}}, {"settings": {"k": after}})
    assert (difference.before, difference.after) == (before, after)
    assert difference.was_captured_before
    assert difference.was_captured_after


@pytest.mark.parametrize(
    "value", [{"$float": "nan"}, float("nan"), 10**400, ABSENT, {"$bytes": ""}]
)
def test_a_value_equals_itself(value: object) -> None:
    assert differences({"settings": {"k": value}}, {"settings": {"k": copy.deepcopy(value)}}) == ()


def test_a_nan_with_other_bits_is_another_value() -> None:
    payload = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000001))[0]
    assert differences({"settings": {"k": float("nan")}}, {"settings": {"k": payload}}) != ()


def test_not_captured_absent_and_redacted_are_three_different_things() -> None:
    values: list[dict[str, Any]] = [{}, {"k": ABSENT}, {"k": {"$redacted": "aa"}}, {"k": "v"}]
    for one in values:
        for other in values:
            found = differences({"settings": one}, {"settings": other})
            assert len(found) == (0 if one == other else 1)
            for each in found:
                assert (each.was_captured_before, each.was_captured_after) == (
                    bool(one),
                    bool(other),
                )


def test_what_one_run_did_not_capture_has_an_unknown_effect() -> None:
    difference = only({"settings": {}}, {"settings": {"torch.num_threads": 2}})
    assert difference.impact == "unknown"
    assert "not captured in the first run" in difference.reason


def test_a_package_that_is_not_listed_is_absent_rather_than_not_captured() -> None:
    difference = only({"packages": {"a": "1"}}, {"packages": {"a": "1", "numpy": "2.4.6"}})
    assert (difference.before, difference.was_captured_before) == (ABSENT, True)
    assert difference.impact == "certain"


def test_packages_of_a_run_that_lists_none_are_not_captured() -> None:
    difference = only({}, {"packages": {"numpy": "2.4.6"}})
    assert (difference.was_captured_before, difference.impact) == (False, "unknown")


def test_an_empty_map_is_not_a_missing_one() -> None:
    assert only({"config": {"a": {}}}, {"config": {"a": {"b": 1}}}).key == "a.b"
    assert only({"settings": {"a": {}}}, {"settings": {}}).key == "a"


def test_keys_of_nested_maps_are_joined_by_dots() -> None:
    difference = only(
        {"config": {"model": {"layers": {"n": 1}}}}, {"config": {"model": {"layers": {"n": 2}}}}
    )
    assert (difference.key, difference.before, difference.after) == ("model.layers.n", 1, 2)


def test_a_value_in_place_of_a_map_is_one_difference() -> None:
    difference = only({"config": {"a": {"b": 1, "c": 2}}}, {"config": {"a": "b"}})
    assert (difference.key, difference.before, difference.after) == ("a", {"b": 1, "c": 2}, "b")


def test_a_key_that_contains_a_dot_is_not_a_path() -> None:
    found = differences({"config": {"a.b": 1}}, {"config": {"a": {"b": 1}}})
    assert [each.key for each in found] == ["a.b", "a.b"]


def test_a_section_that_looks_like_a_stand_in_is_compared_all_the_same() -> None:
    assert only({"config": {"$float": "1"}}, {"config": {"$float": "2"}}).key == "$float"


def test_a_variable_that_is_not_recorded_is_unset() -> None:
    difference = only(
        {"environment": {"env.A": "1"}}, {"environment": {"env.A": "1", "env.NCCL_ALGO": "Tree"}}
    )
    assert (difference.before, difference.impact) == (ABSENT, "certain")


def test_a_variable_that_the_program_left_alone_has_its_first_value() -> None:
    started = {"env.OMP_DYNAMIC": "a"}
    difference = only(
        {"environment": started}, {"environment": {**started, "env_now.OMP_DYNAMIC": "b"}}
    )
    assert (difference.key, difference.before, difference.after) == (
        "env_now.OMP_DYNAMIC",
        "a",
        "b",
    )
    assert difference.impact == "certain"


def test_deeply_nested_values_are_compared() -> None:
    def nest(value: object) -> object:
        for level in range(20_000):
            value = [value] if level % 2 else {"k": value}
        return value

    before, after = {"config": {"k": nest(1)}}, {"config": {"k": nest(2)}}
    assert len(differences(before, after)) == 1
    assert differences(before, {"config": {"k": nest(1)}}) == ()


def test_numbers_too_large_to_print_are_compared() -> None:
    before, after = {"config": {"k": [10**5000]}}, {"config": {"k": [10**5000 + 1]}}
    assert only(before, after).key == "k"
    assert differences(before, copy.deepcopy(before)) == ()


# Ranking.


def test_the_most_consequential_difference_comes_first() -> None:
    before: Sections = {
        "packages": {"pip": "1", "unheard-of": "1"},
        "settings": {"torch.num_threads": 1, "torch.anomaly": True, "sdpa.overrideable": True},
        "code": {"files": {"train.py": "a"}},
    }
    after: Sections = {
        "packages": {"pip": "2", "unheard-of": "2"},
        "settings": {"torch.num_threads": 2, "torch.anomaly": False, "sdpa.overrideable": False},
        "code": {"files": {"train.py": "b"}},
    }
    found = differences(before, after)
    assert [(each.impact, each.key) for each in found] == [
        ("certain", "files.train.py"),
        ("certain", "torch.num_threads"),
        ("possible", "sdpa.overrideable"),
        ("unknown", "unheard-of"),
        ("performance", "torch.anomaly"),
        ("informational", "pip"),
    ]


def test_a_difference_says_why_it_matters_and_where_that_is_written() -> None:
    difference = only(
        {"settings": {"torch.num_threads": 1}}, {"settings": {"torch.num_threads": 2}}
    )
    assert difference.reason
    assert difference.source


def test_a_key_without_a_rule_says_so() -> None:
    difference = only({"settings": {"nobody.knows": 1}}, {"settings": {"nobody.knows": 2}})
    assert (difference.impact, difference.reason) == ("unknown", "no rule is known for this key")


# Processes.


def process(**sections: dict[str, Any]) -> Process:
    trail = TrailSummary(steps=1, streams=("loss",), algorithm="1")
    return Process(sections=sections, trail=trail)


def test_a_rank_that_differs_is_named() -> None:
    before = manifest(
        {"hardware": {"gpu.driver": "550.127"}},
        processes={
            "main": Process(),
            "main.x1": process(hardware={"gpu.driver": "550.127"}),
        },
    )
    after = manifest(
        {"hardware": {"gpu.driver": "550.127"}},
        processes={
            "main": Process(),
            "main.x1": process(hardware={"gpu.driver": "550.90"}),
        },
    )
    (found,) = diff(before, after).differences
    assert (found.section, found.key) == ("hardware", "main.x1: gpu.driver")
    assert (found.before, found.after) == ("550.127", "550.90")


def test_a_rank_that_repeats_a_difference_of_the_run_is_not_listed_again() -> None:
    def run(threads: int) -> Manifest:
        settings = {"torch.num_threads": threads}
        ranks = {f"main.x{rank}": process(settings=settings) for rank in range(3)}
        return manifest({"settings": settings}, processes=ranks)

    assert [each.key for each in diff(run(1), run(2)).differences] == ["torch.num_threads"]


def test_a_rank_that_only_one_run_had_is_a_difference() -> None:
    found = diff(
        manifest({}), manifest({}, processes={"main.x1": process(settings={})})
    ).differences
    assert [(each.section, each.key, each.impact) for each in found] == [
        ("processes", "main.x1: recorded", "possible")
    ]


def test_two_ranks_of_one_run_can_be_compared() -> None:
    (found,) = diff_sections(
        {"settings": {"torch.num_threads": 1}}, {"settings": {"torch.num_threads": 2}}
    )
    assert (found.key, found.impact) == ("torch.num_threads", "certain")


# Laws.

KEYS = st.one_of(
    st.sampled_from(
        [
            "argv", "root", "files", "git.commit", "git.patch", "entropy", "draws",
            "calls", "entropy_from", "hash_seed", "torch", "torch.version", "torch.num_threads",
            "python", "state", "kind", "digest", "size", "mtime_us", "blob", "missing", "a.py",
            "/r/a.py", "env.OMP_NUM_THREADS", "env.PYTHONHASHSEED", "env_now.TZ", "cpu.count",
            "loader.0", "batch_size", "torch.distributed.world_size", "executable", "imported",
            "python.version", "$absent", "$redacted", "$failed", "$float", "num_workers",
            "optimizer.0", "autocast", "class", "dtypes", "torch.default_dtype", "sampler",
            "sampler.seed", "batch_sampler.batch_size", "prefetch_factor",
            "fp32_precision.generic.all", "fp32_precision.mkldnn.matmul", "gpu.0.cores",
            "torch.float32_matmul_precision", "torch.backends.cudnn.allow_tf32", "triton",
            "inductor.nondefault", "python.hash_probe", "torch.multiprocessing.start_method",
        ]
    ),
    st.text(st.characters(), max_size=4),
)  # fmt: skip
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from(["none", "bf16", "tf32", "highest", "medium", "9.0", "random"]),
    st.sampled_from([10**40, -(10**40), "/r", "/q/s", "/r/a.py", "sha256:" + "0" * 64, "2.13.0"]),
    st.floats(),
    st.text(st.characters(), max_size=4),
    st.just(ABSENT),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=6,
)
SECTIONS_OF_A_RUN = st.dictionaries(
    st.sampled_from(SECTIONS), st.dictionaries(KEYS, VALUES, max_size=6), max_size=len(SECTIONS)
)


# Sections whose keys are all there is, so that one that is missing is absent.
LISTING_ALL = ("config", "packages", "inputs", "outputs", "loaders", "training")


def unchecked(sections: Sections, run_id: str) -> Manifest:
    # Validation would refuse keys with lone surrogates, which a damaged store may still hold.
    return manifest({}, run_id=run_id).model_copy(update={"sections": sections})


@settings(max_examples=60, deadline=None)
@given(SECTIONS_OF_A_RUN)
def test_a_run_does_not_differ_from_itself(sections: Sections) -> None:
    before, after = unchecked(sections, A), unchecked(copy.deepcopy(sections), B)
    assert diff(before, after).differences == ()


@settings(max_examples=60, deadline=None)
@given(SECTIONS_OF_A_RUN, SECTIONS_OF_A_RUN)
def test_exchanging_the_runs_mirrors_the_differences(one: Sections, other: Sections) -> None:
    there = diff(unchecked(one, A), unchecked(other, B), blobs=lambda digest: b"x = 1\n")
    back = diff(unchecked(other, B), unchecked(one, A), blobs=lambda digest: b"x = 1\n")

    def seen(value: object) -> str:
        return repr(type(value)) if isinstance(value, int) else repr(value)

    assert [
        (each.section, each.key, each.impact, seen(each.before)) for each in there.differences
    ] == [(each.section, each.key, each.impact, seen(each.after)) for each in back.differences]
    assert there.compared == back.compared
    assert there.conclusion == back.conclusion


@settings(max_examples=60, deadline=None)
@given(SECTIONS_OF_A_RUN, SECTIONS_OF_A_RUN)
def test_comparing_leaves_the_runs_as_they_are(one: Sections, other: Sections) -> None:
    kept = copy.deepcopy((one, other))
    diff(unchecked(one, A), unchecked(other, B))
    assert diff_sections(kept[0], one) == diff_sections(kept[1], other) == ()


BITS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 1),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, float("inf"), float("nan")]),
    st.floats(),
    st.sampled_from(["", "0", "1", "True", "None", "nan"]),
    st.just(ABSENT),
    st.sampled_from([{"$redacted": "aa"}, {"$redacted": "bb"}, {"$float": "nan"}]),
)


def exactly(value: object) -> object:
    """What two values share only if they are the same, by type and by bits."""
    return type(value), struct.pack("<d", value) if isinstance(value, float) else repr(value)


@given(BITS, BITS)
def test_values_are_the_same_only_by_type_and_by_bits(one: Any, other: Any) -> None:
    are_same = exactly(one) == exactly(other)
    for before, after in ((one, other), ([0, one], [0, other]), ({"a": [one]}, {"a": [other]})):
        found = differences({"settings": {"k": before}}, {"settings": {"k": after}})
        assert (found == ()) == are_same


MISSING = st.sampled_from([{}, {"k": ABSENT}, {"k": {"$redacted": "aa"}}, {"k": {"$failed": "e"}}])


@given(MISSING, st.one_of(MISSING, st.fixed_dictionaries({"k": LEAVES})), st.sampled_from(SECTIONS))
def test_ways_to_have_no_value_stay_apart(one: Any, other: Any, section: str) -> None:
    here, there = {section: {"known": 1, **one}}, {section: {"known": 1, **other}}
    is_absent = section in LISTING_ALL
    for each in differences(here, there):
        assert each.was_captured_before == ("k" in one or is_absent)
        assert each.was_captured_after == ("k" in other or is_absent)
        missing = ABSENT if is_absent else None
        assert exactly(each.before) == exactly(one.get("k", missing))
        assert exactly(each.after) == exactly(other.get("k", missing))


@settings(max_examples=60, deadline=None)
@given(SECTIONS_OF_A_RUN, SECTIONS_OF_A_RUN)
def test_differences_are_ranked(one: Sections, other: Sections) -> None:
    order = ["certain", "possible", "unknown", "performance", "informational"]
    ranks = [
        (order.index(each.impact), SECTIONS.index(each.section), each.key)
        for each in diff_sections(one, other)
    ]
    assert ranks == sorted(ranks)
