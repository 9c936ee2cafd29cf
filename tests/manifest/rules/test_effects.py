"""One fact in several places is one difference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from manifest.canonical import ABSENT
from manifest.diffing import diff_sections

Impacts = Callable[..., dict[str, str]]
Sections = dict[str, dict[str, Any]]


def threads(variable: Any, count: int) -> Sections:
    return {
        "environment": {"env.OMP_NUM_THREADS": variable},
        "settings": {"torch.num_threads": count},
    }


def test_a_variable_and_the_setting_it_becomes_are_both_kept() -> None:
    found = {each.key: each for each in diff_sections(threads(ABSENT, 2), threads("1", 1))}
    assert found["torch.num_threads"].impact == "certain"
    variable = found["env.OMP_NUM_THREADS"]
    assert variable.impact == "certain"
    assert "torch.num_threads, which differs too" in variable.reason


def test_a_variable_without_effect_on_its_setting_matters_less(impacts: Impacts) -> None:
    assert impacts(threads(ABSENT, 2), threads("2", 2)) == {"env.OMP_NUM_THREADS": "possible"}


def test_the_hash_seed_is_counted_once(impacts: Impacts) -> None:
    def run(seed: str, probe: int) -> Sections:
        return {
            "seeds": {"hash_seed": seed},
            "environment": {"env.PYTHONHASHSEED": seed},
            "settings": {"python.hash_probe": probe},
        }

    assert impacts(run("1", 7), run("2", 8)) == {
        "hash_seed": "possible",
        "env.PYTHONHASHSEED": "informational",
        "python.hash_probe": "informational",
    }
    assert impacts(run("random", 7), run("random", 8)) == {"python.hash_probe": "possible"}


def test_more_processors_matter_only_through_the_number_of_threads(impacts: Impacts) -> None:
    def run(processors: int, count: int) -> Sections:
        return {"hardware": {"cpu.count": processors}, "settings": {"torch.num_threads": count}}

    assert impacts(run(2, 2), run(64, 2)) == {"cpu.count": "informational"}
    assert impacts(run(2, 2), run(64, 32))["cpu.count"] == "certain"


def test_a_variable_that_the_program_set_becomes_the_setting_too() -> None:
    before, after = threads(ABSENT, 2), threads(ABSENT, 1)
    after["environment"]["env_now.OMP_NUM_THREADS"] = "1"
    found = {each.key: each for each in diff_sections(before, after)}
    assert "torch.num_threads, which differs too" in found["env_now.OMP_NUM_THREADS"].reason


def described(count: int, variable: Any = ABSENT, *, openmp: str = "201511") -> Sections:
    known = threads(variable, count)
    said = "[not set]" if variable == ABSENT else variable
    known["settings"]["torch.parallel_info"] = [
        "ATen/Parallel:",
        f"\tat::get_num_threads() : {count}",
        f"OpenMP {openmp} (a.k.a. OpenMP 4.5)",
        f"\tomp_get_max_threads() : {count}",
        f"\tOMP_NUM_THREADS : {said}",
    ]
    return known


def test_a_description_that_repeats_the_number_of_threads_follows_from_it() -> None:
    for variable, causes in (
        (ABSENT, "torch.num_threads, which differs too"),
        ("1", "torch.num_threads and OMP_NUM_THREADS, which differ too"),
    ):
        pair = described(2), described(1, variable)
        (found,) = [each for each in diff_sections(*pair) if each.key == "torch.parallel_info"]
        assert (found.impact, found.reason) == ("informational", f"follows from {causes}")


def test_a_description_that_says_more_is_a_difference_of_its_own(impacts: Impacts) -> None:
    another_library = impacts(described(2), described(1, openmp="202011"))
    assert another_library["torch.parallel_info"] == "possible"
    unexplained = described(2)
    unexplained["settings"]["torch.parallel_info"][3] = "\tomp_get_max_threads() : 1"
    assert impacts(described(2), unexplained) == {"torch.parallel_info": "possible"}
    longer = described(1)
    longer["settings"]["torch.parallel_info"].append("more")
    assert impacts(described(2), longer)["torch.parallel_info"] == "possible"


def test_the_instruction_set_in_use_is_told_once(impacts: Impacts) -> None:
    def run(capability: str, build: str) -> Sections:
        config = ["PyTorch built with:", f"  - CPU capability usage: {capability}", f"  - {build}"]
        return {"settings": {"torch.cpu.capability": capability, "torch.config": config}}

    assert impacts(run("AVX2", "A=1"), run("AVX512", "A=1"))["torch.config"] == "informational"
    assert impacts(run("AVX2", "A=1"), run("AVX512", "A=2"))["torch.config"] == "certain"


def pools(kind: Any, count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"internal_api": kind, "num_threads": count, **more}]


@pytest.mark.parametrize(
    ("before", "after", "impact"),
    [
        (pools("openmp", 2), pools("openmp", 1), "informational"),
        (pools("mkl", 2), pools("mkl", 1), "informational"),
        (pools("openblas", 2), pools("openblas", 1), "possible"),
        (pools("openmp", 2, version="1"), pools("openmp", 1, version="2"), "possible"),
        (pools("openmp", 2), pools("mkl", 1), "possible"),
        (pools(["openmp"], 2), pools(["openmp"], 1), "possible"),
        (pools("openmp", 2), ["openmp"], "possible"),
        (pools("openmp", 2), pools("openmp", 1) * 2, "possible"),
    ],
)
def test_pools_of_threads_follow_from_what_sets_their_number(
    impacts: Impacts, before: Any, after: Any, impact: str
) -> None:
    sections = threads(ABSENT, 2), threads(ABSENT, 1)
    sections[0]["settings"]["blas.threadpools"] = before
    sections[1]["settings"]["blas.threadpools"] = after
    assert impacts(*sections)["blas.threadpools"] == impact


def test_a_hash_seed_that_nobody_pinned_is_told() -> None:
    def run(probe: int) -> Sections:
        return {
            "seeds": {"hash_seed": "random"},
            "settings": {"python.hash_probe": probe},
        }

    (found,) = diff_sections(run(7), run(8))
    assert found.impact == "possible"
    assert "Neither run pinned PYTHONHASHSEED" in found.reason


def test_a_list_of_options_follows_from_those_that_are_recorded(impacts: Impacts) -> None:
    key = "torch._inductor.config.deterministic"

    def run(is_on: bool, *more: str) -> Sections:
        options = [f"{key} = True"] * is_on + list(more)
        return {"settings": {key: is_on, "inductor.nondefault": options}}

    assert impacts(run(False), run(True)) == {
        key: "possible",
        "inductor.nondefault": "informational",
    }
    other = impacts(run(False), run(True, "torch._inductor.config.unheard_of = 1"))
    assert other["inductor.nondefault"] == "possible"
