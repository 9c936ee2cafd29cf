"""Forms of seeds: the exact one gives the seed back, the shown one is short."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifest.seedforms import decoded, exact, in_words, shown

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
seeds = st.one_of(
    st.integers(-(2**4000), 2**4000),
    st.floats(allow_nan=False),
    texts,
    st.binary(max_size=200),
    st.lists(st.integers(0, 2**70), max_size=64),
)


@given(seeds)
def test_a_seed_comes_back_through_json_as_it_was(seed: Any) -> None:
    back = decoded(json.loads(json.dumps(exact(seed))))
    assert back == seed
    assert type(back) is type(seed)


@given(st.one_of(st.integers(), texts, st.binary(max_size=200), st.floats(allow_nan=False)))
def test_a_seed_that_came_back_seeds_alike(seed: Any) -> None:
    assert random.Random(decoded(exact(seed))).random() == random.Random(seed).random()


@pytest.mark.parametrize(
    "seed",
    [np.int64(5), np.array([1, 2], dtype=np.uint32), np.arange(5), [2**40, 3], (1, 2), np.int8(7)],
)
def test_a_seed_of_numpy_comes_back_as_one_that_seeds_alike(seed: Any) -> None:
    back = decoded(exact(seed))
    assert np.random.default_rng(back).random() == np.random.default_rng(seed).random()


@pytest.mark.parametrize(
    "seed",
    [
        1 << 5000,
        "x" * 201,
        b"x" * 201,
        "\ud800",
        list(range(65)),
        [1, "x"],
        [1.0],
        np.arange(65),
        np.array([0.5]),
        np.random.SeedSequence(1),
        object(),
        None,
    ],
)
def test_what_cannot_be_given_again_has_no_exact_form(seed: object) -> None:
    assert exact(seed) is None


@pytest.mark.parametrize(
    "kept",
    [None, {}, {"$repr": "x"}, {"$int": "9" * 5000}, {"$int": 5}, [1, "x"], [[1]], {"$bytes": 1}],
)
def test_what_a_made_up_manifest_says_is_no_seed(kept: Any) -> None:
    assert decoded(kept) is None


def test_what_is_shown_is_short_and_reads_as_a_sentence() -> None:
    assert shown(1 << 5000) == "an integer of 5001 bits"
    assert shown([5, 6]) == "[5, 6]"
    assert in_words(shown(2**60)) == str(2**60)
    assert in_words(shown("x")) == "x"
