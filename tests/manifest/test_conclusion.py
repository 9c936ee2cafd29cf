"""The sentence at the top of a diff."""

from __future__ import annotations

import pytest

from manifest.conclusion import conclude
from manifest.diffing import diff_sections
from manifest.models import Difference


def difference(impact: str, key: str, section: str = "settings") -> Difference:
    return Difference.model_validate(
        {"section": section, "key": key, "before": 1, "after": 2, "impact": impact, "reason": "r"}
    )


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ([], "No recorded difference."),
        (
            [("certain", "torch.num_threads", "settings"), ("certain", "files.train.py", "code")],
            (
                "2 differences change results: torch.num_threads, train.py; "
                "the runs cannot be expected to agree."
            ),
        ),
        (
            [("certain", "numpy", "packages")],
            "1 difference changes results: packages.numpy; the runs cannot be expected to agree.",
        ),
        (
            [("certain", "a", "settings"), ("possible", "b", "settings")],
            "1 difference changes results: a; 1 more can; the runs cannot be expected to agree.",
        ),
        (
            [("possible", "lr", "config")],
            "1 difference can change results: config.lr; the runs may not agree.",
        ),
        (
            [("possible", "a", "settings"), ("unknown", "b", "settings")],
            "1 difference can change results: a; the runs may not agree.",
        ),
        (
            [("unknown", "a", "settings"), ("unknown", "b", "hardware")],
            "2 differences of unknown effect: a, b; the runs may not agree.",
        ),
        (
            [("performance", "a", "settings"), ("informational", "b", "settings")],
            "Nothing that can change results differs.",
        ),
        (
            [("certain", key, "settings") for key in "abcdefg"],
            (
                "7 differences change results: a, b, c, d, e, and 2 more; "
                "the runs cannot be expected to agree."
            ),
        ),
    ],
)
def test_the_conclusion_is_one_sentence(found: list[tuple[str, str, str]], sentence: str) -> None:
    assert conclude([difference(*each) for each in found]) == sentence


def test_the_conclusion_stays_one_line_whatever_the_keys_are() -> None:
    sentence = conclude([difference("certain", "a\nb" * 500)])
    assert "\n" not in sentence
    assert len(sentence) < 200


def test_a_variable_and_the_setting_it_becomes_are_one_difference() -> None:
    variables = ["env.OMP_NUM_THREADS", "env_now.OMP_NUM_THREADS", "env.MKL_NUM_THREADS"]
    found = [
        difference("certain", "torch.num_threads"),
        *(difference("certain", key, "environment") for key in variables),
    ]
    assert conclude(found) == (
        "1 difference changes results: torch.num_threads (OMP_NUM_THREADS, MKL_NUM_THREADS); "
        "the runs cannot be expected to agree."
    )


def test_a_variable_that_weighs_more_than_its_setting_is_counted() -> None:
    found = [
        difference("certain", "env.OMP_NUM_THREADS", "environment"),
        difference("possible", "torch.num_threads"),
    ]
    assert conclude(found) == (
        "1 difference changes results: env.OMP_NUM_THREADS; 1 more can; "
        "the runs cannot be expected to agree."
    )


def test_a_variable_of_a_rank_belongs_to_the_setting_of_that_rank() -> None:
    found = [
        difference("certain", "main.x1: torch.num_threads"),
        difference("certain", "main.x1: env.OMP_NUM_THREADS", "environment"),
        difference("certain", "main.x2: env.OMP_NUM_THREADS", "environment"),
    ]
    assert conclude(found).startswith(
        "2 differences change results: main.x1: torch.num_threads (OMP_NUM_THREADS), main.x2: env."
    )


def test_one_changed_variable_is_one_difference_of_two_runs() -> None:
    def run(variable: str, count: int) -> dict[str, dict[str, object]]:
        info = [f"at::get_num_threads() : {count}", f"OMP_NUM_THREADS : {variable}"]
        return {
            "environment": {"env.OMP_NUM_THREADS": variable},
            "settings": {"torch.num_threads": count, "torch.parallel_info": info},
        }

    assert conclude(diff_sections(run("1", 1), run("2", 2))) == (
        "1 difference changes results: torch.num_threads (OMP_NUM_THREADS); "
        "the runs cannot be expected to agree."
    )
