"""Rows, taken apart by stream."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from manifest.streams import DIGEST_SIZE, STREAMS, WORD_SIZE, unequal_words, words

cells = st.binary(min_size=DIGEST_SIZE, max_size=DIGEST_SIZE)
rows = st.lists(st.tuples(*[cells] * len(STREAMS)), max_size=5)
columns = st.lists(st.sampled_from([b"a" * 8, b"b" * 8, b"\0" * 8]), min_size=600, max_size=600)


@given(rows)
def test_a_stream_is_its_cells_in_halves(given_rows: list[tuple[bytes, ...]]) -> None:
    content = b"".join(b"".join(row) for row in given_rows)
    for index, stream in enumerate(STREAMS):
        first, second = words(content, stream)
        assert first == b"".join(row[index][:WORD_SIZE] for row in given_rows)
        assert second == b"".join(row[index][WORD_SIZE:] for row in given_rows)


@given(columns, columns)
def test_only_what_both_observed_is_unequal(before: list[bytes], after: list[bytes]) -> None:
    found = list(unequal_words(b"".join(before), b"".join(after)))
    assert found == [
        place
        for place, (a, b) in enumerate(zip(before, after, strict=True))
        if a != b and b"\0" * 8 not in (a, b)
    ]
