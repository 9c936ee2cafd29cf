"""Lanes are what the rows say, also where digests were looked at in their place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifest.coverage import comparable
from manifest.lanes import STATES, State, buckets, lanes
from manifest.leaves import LeafWriter
from manifest.segments import SEGMENT_STEPS, Segments, segment_digests
from manifest.streams import DIGEST_SIZE, ROW_SIZE, STREAMS, UNOBSERVED
from manifest.trail import ALGORITHM, Trail

HEADER = {
    "schema": 1,
    "algorithm": ALGORITHM,
    "streams": STREAMS,
    "row": ROW_SIZE,
    "rng": ["shared", "own"],
}
LONG = 3 * SEGMENT_STEPS + 200

Changes = Mapping[tuple[int, str], bytes]


class CountedRows:
    """Rows that know how many of them were asked for."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.read = 0

    def __len__(self) -> int:
        return len(self.content)

    def __getitem__(self, part: slice) -> bytes:
        found = self.content[part]
        self.read += len(found) // ROW_SIZE
        return found


def usual(step: int, stream: str) -> bytes:
    return hashlib.md5(f"{stream} {step}".encode()).digest()


USUAL = b"".join(usual(step, stream) for step in range(LONG) for stream in STREAMS)


def make(
    steps: int = LONG,
    *,
    changes: Changes | None = None,
    names: tuple[str, ...] = ("python",),
    has_segments: bool = True,
    rows: bytes = USUAL,
) -> Trail:
    content = bytearray(rows[: steps * ROW_SIZE])
    for (step, stream), digest in (changes or {}).items():
        if step < steps:
            begin = step * ROW_SIZE + STREAMS.index(stream) * DIGEST_SIZE
            content[begin : begin + DIGEST_SIZE] = digest
    writer = LeafWriter()
    leaves = b"".join(
        writer.frames(0, kind, names, [b"12345678"] * len(names)) for kind in ("rng", "own")
    )
    whole = range(0, len(content) - SEGMENT_STEPS * ROW_SIZE + 1, SEGMENT_STEPS * ROW_SIZE)
    nodes = [
        segment_digests(bytes(content[start : start + SEGMENT_STEPS * ROW_SIZE])) for start in whole
    ]
    return Trail.of_parts(
        json.dumps(HEADER).encode() + b"\n",
        CountedRows(bytes(content)),
        lambda suffix: leaves if suffix == ".tensors" else b"",
        Segments.over(nodes) if has_segments else None,
    )


Halves = tuple[Sequence[range], Sequence[range]]


def state_of_step(before: Trail, after: Trail, step: int, stream: str, halves: Halves) -> State:
    """Row by row, as `manifest.comparing` compares them."""
    a, b = (trail.digest(step, stream) if step < trail.steps else None for trail in (before, after))
    if a is None or b is None:
        return "not observed" if a is b else "one side"
    compared = [
        (a[place : place + 8], b[place : place + 8])
        for place, ranges in zip((0, 8), halves, strict=True)
        if any(step in each for each in ranges)
    ]
    if any(x != y and any(x) and any(y) for x, y in compared):
        return "differs"
    return "equal" if compared else "not observed"


def naive(before: Trail, after: Trail, steps: range, count: int) -> dict[str, list[State]]:
    found: dict[str, list[State]] = {}
    for stream in STREAMS:
        halves = comparable(before, after, stream)
        found[stream] = [
            max(
                (state_of_step(before, after, step, stream, halves) for step in bucket),
                key=STATES.index,
            )
            for bucket in buckets(steps, count)
        ]
    return found


digest = st.sampled_from([UNOBSERVED, b"o" * 16, b"s" * 8 + bytes(8), b"other" * 3 + b"!"])
places = st.tuples(
    st.one_of(st.integers(0, LONG - 1), st.sampled_from([0, 1023, 1024, 2047, 3071, LONG - 1])),
    st.sampled_from(STREAMS),
)


@st.composite
def changes(draw: st.DrawFn) -> Changes:
    """Some steps, and some stretches of them, that are other than usual."""
    found = dict(draw(st.dictionaries(places, digest, max_size=4)))
    for start, stream in draw(st.lists(places, max_size=2)):
        every = draw(st.sampled_from([1, 1, 7, 900]))
        value = draw(digest)
        stop = draw(st.sampled_from([start + 5, start + SEGMENT_STEPS, LONG]))
        found |= {(step, stream): value for step in range(start, stop, every)}
    return found


@settings(max_examples=40, deadline=None)
@given(
    before=changes(),
    after=changes(),
    lengths=st.tuples(*[st.sampled_from([LONG, LONG, LONG, 2100, 2048, 5, 0])] * 2),
    part=st.sampled_from([(0, LONG), (0, LONG), (0, LONG), (700, 1500), (1024, 1024), (9, 1)]),
    count=st.sampled_from([1, 2, 3, 4, 50, 240]),
    has_segments=st.booleans(),
    names=st.sampled_from([("python",), ("python", "numpy")]),
)
def test_lanes_are_those_of_all_rows(
    before: Changes,
    after: Changes,
    lengths: tuple[int, int],
    part: tuple[int, int],
    count: int,
    has_segments: bool,
    names: tuple[str, ...],
) -> None:
    first = make(lengths[0], changes=before)
    second = make(lengths[1], changes=after, has_segments=has_segments, names=names)
    steps = range(part[0], min(sum(part), LONG))

    assert lanes(first, second, steps, count) == naive(first, second, steps, count)


def test_a_short_trail_has_a_bucket_for_each_step() -> None:
    found = lanes(make(10), make(10, changes={(7, "grad"): b"o" * 16}), range(10), 240)

    assert found["grad"] == ["equal"] * 7 + ["differs"] + ["equal"] * 2
    assert found["batch"] == ["equal"] * 10


@pytest.mark.parametrize("count", [1, 2, 4, 240])
@pytest.mark.parametrize("place", [2 * SEGMENT_STEPS + 3, 2 * SEGMENT_STEPS - 1, LONG - 1])
@pytest.mark.parametrize("stream", STREAMS)
def test_one_step_that_differs_is_in_its_bucket(stream: str, place: int, count: int) -> None:
    found = lanes(make(), make(changes={(place, stream): b"o" * 16}), range(LONG), count)

    parts = buckets(range(LONG), count)
    assert found[stream] == ["differs" if place in part else "equal" for part in parts]


def test_of_a_stream_seen_now_and_then_each_bucket_says_whether_it_was() -> None:
    gaps = {(step, "param"): UNOBSERVED for step in range(LONG) if step % 500}
    first, second = make(changes=gaps), make(changes=gaps)

    found = lanes(first, second, range(LONG), 240)["param"]

    parts = buckets(range(LONG), 240)
    assert found == [
        "equal" if any(step % 500 == 0 for step in part) else "not observed" for part in parts
    ]


def test_own_generators_that_one_side_alone_knows_are_not_compared() -> None:
    shared = {(step, "rng"): usual(step, "rng")[:8] + bytes(8) for step in range(LONG)}
    other = {(step, "rng"): usual(step, "rng")[:8] + b"own bits" for step in range(LONG)}

    found = lanes(make(changes=shared), make(changes=other), range(LONG), 3)

    assert found["rng"] == ["equal"] * 3


def test_after_the_end_of_one_trail_the_other_alone_has_seen() -> None:
    found = lanes(make(4), make(6), range(6), 240)

    assert found["loss"] == ["equal"] * 4 + ["one side"] * 2


def test_steps_that_one_side_did_not_see_do_not_hide_that_others_are_equal() -> None:
    gap = {(step, "param"): UNOBSERVED for step in range(1, 10)}
    found = lanes(make(10), make(10, changes=gap), range(10), 5)

    assert found["param"] == ["equal"] + ["one side"] * 4


def test_nothing_is_compared_over_no_step() -> None:
    assert lanes(make(0), make(0), range(0), 240) == {stream: [] for stream in STREAMS}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_rows_of_equal_segments_are_not_read(count: int) -> None:
    steps = range(3 * SEGMENT_STEPS)
    sides = [CountedRows(USUAL[: steps.stop * ROW_SIZE]) for _ in range(2)]
    nodes = [
        segment_digests(sides[0].content[start : start + SEGMENT_STEPS * ROW_SIZE])
        for start in range(0, len(sides[0]), SEGMENT_STEPS * ROW_SIZE)
    ]
    header = json.dumps(HEADER).encode() + b"\n"
    first, second = (
        Trail.of_parts(header, rows, lambda _: b"", Segments.over(nodes)) for rows in sides
    )
    assert first.segments
    assert second.segments  # which reads the last, to be sure of them
    read = [rows.read for rows in sides]

    assert set(lanes(first, second, steps, count)["loss"]) == {"equal"}
    assert [rows.read for rows in sides] == read
