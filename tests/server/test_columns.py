"""Rows of trails are kept without the columns that hold nothing, and come back byte for byte."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifest.segments import SEGMENT_STEPS
from manifest.streams import ROW_SIZE, WORD_SIZE
from manifest_server.columns import HEAD_SIZE, packed, size_of, unpacked

COLUMNS = ROW_SIZE // WORD_SIZE


def rows(count: int, observed: set[int], seed: int = 0) -> bytes:
    """Rows in which some columns hold numbers and the others nothing."""
    draw = random.Random(seed)
    words = (
        draw.randbytes(WORD_SIZE) if column in observed else bytes(WORD_SIZE)
        for _ in range(count)
        for column in range(COLUMNS)
    )
    return b"".join(words)


@given(
    count=st.integers(1, 40),
    observed=st.sets(st.integers(0, COLUMNS - 1)),
    seed=st.integers(0, 9),
)
def test_any_rows_come_back(count: int, observed: set[int], seed: int) -> None:
    found = rows(count, observed, seed)
    kept = packed(found)
    assert unpacked(kept) == found
    assert size_of(len(kept), kept[:HEAD_SIZE]) == len(found)


@given(
    st.lists(st.sampled_from([bytes(WORD_SIZE), b"1" * WORD_SIZE]), min_size=COLUMNS).map(
        lambda words: b"".join(words[: len(words) // COLUMNS * COLUMNS])
    )
)
def test_rows_of_which_some_hold_nothing_come_back(found: bytes) -> None:
    assert unpacked(packed(found)) == found


@pytest.mark.parametrize("observed", [set(), {0}, {0, 4, 5, 8, 9}, set(range(1, COLUMNS))])
def test_what_holds_nothing_takes_no_room(observed: set[int]) -> None:
    kept = packed(rows(SEGMENT_STEPS, observed))
    assert len(kept) == HEAD_SIZE + SEGMENT_STEPS * WORD_SIZE * len(observed)


def test_rows_of_which_every_column_holds_something_stay_as_they_are() -> None:
    found = rows(SEGMENT_STEPS, set(range(COLUMNS)))
    assert packed(found) is found
    assert unpacked(found) is found
