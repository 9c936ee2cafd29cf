"""Lanes: how each stream of two trails compares over many steps, in buckets for a picture.

A bucket differs where any step of it that was compared differs, and is equal where all of those
are; only where none was compared it matters that one side saw the stream and the other did not.

Of long trails the digests of segments are looked at, and rows where those leave something open.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal, TypeAlias

from manifest.coverage import comparable, seen
from manifest.segments import SEGMENT_STEPS, digests, is_complete
from manifest.streams import ROW_SIZE, STREAMS, WORD_SIZE, unequal_words, words
from manifest.trail import Trail

State: TypeAlias = Literal["not observed", "one side", "equal", "differs"]
STATES: Final[tuple[State, ...]] = ("not observed", "one side", "equal", "differs")
"""What a bucket can be; of several steps the last of these decides."""


def lanes(before: Trail, after: Trail, steps: range, count: int) -> dict[str, list[State]]:
    """Compare two trails over some steps.

    Args:
        before: The trail of one run.
        after: Of the same process in the other.
        steps: Which ones; of those that a trail does not have, it saw nothing.
        count: In how many buckets, at most.

    Returns:
        By stream, the state of each of `buckets(steps, count)`.
    """
    pair = _Pair(before, after)
    found: dict[str, list[State]] = {stream: [] for stream in STREAMS}
    for bucket in buckets(steps, count):
        for stream, state in pair.states(bucket).items():
            found[stream].append(state)
    return found


def buckets(steps: range, count: int) -> list[range]:
    """Cut steps into at most so many parts of about one length.

    Example:
        >>> buckets(range(10), 3)
        [range(0, 3), range(3, 6), range(6, 10)]
    """
    count = min(count, len(steps))
    bounds = [steps.start + number * len(steps) // count for number in range(count)] + [steps.stop]
    return [range(bounds[number], bounds[number + 1]) for number in range(count)]


class _Pair:
    """The two trails of one process; the rows that were read last are held."""

    def __init__(self, before: Trail, after: Trail) -> None:
        self._trails = before, after
        self._comparable = {stream: comparable(before, after, stream) for stream in STREAMS}
        self._segment = -1
        self._rows = (b"", b"")
        self._columns: dict[str, tuple[tuple[bytes, bytes], tuple[bytes, bytes]]] = {}

    def states(self, bucket: range) -> dict[str, State]:
        """The state of each stream over a bucket."""
        found: dict[str, State] = dict.fromkeys(STREAMS, "not observed")
        unsettled: list[tuple[range, str, State]] = []
        for part in _cut(bucket):
            for stream in STREAMS:
                least, most = self._by_digests(stream, part)
                found[stream] = _graver(found[stream], least)
                if least != most:
                    unsettled.append((part, stream, most))
        for part, stream, most in unsettled:
            if _graver(found[stream], most) != found[stream]:
                found[stream] = _graver(found[stream], self._by_rows(stream, part))
        return found

    def _by_digests(self, stream: str, part: range) -> tuple[State, State]:
        """The least and the most that steps of one segment can be, by the digests over it."""
        nodes = [_node(trail, part.start // SEGMENT_STEPS) for trail in self._trails]
        if nodes[0] is None or nodes[1] is None:
            return "not observed", "differs"
        before, after = digests(nodes[0]).get(stream), digests(nodes[1]).get(stream)
        if before is None and after is None:
            return "not observed", "not observed"
        is_whole = len(part) == SEGMENT_STEPS
        are_complete = all(cell is None or is_complete(cell) for cell in (before, after))
        is_seen = is_whole or are_complete
        if before is None or after is None:
            return "one side" if is_seen else "not observed", "one side"
        is_compared = any(_lies_in(part, each) for each in self._comparable[stream][0])
        if before == after:
            return "equal" if is_seen and is_compared else "not observed", "equal"
        # Of generators one half may be known on one side alone.
        is_certain = is_whole and are_complete and stream != "rng"
        return "differs" if is_certain else "not observed", "differs"

    def _by_rows(self, stream: str, part: range) -> State:
        start = part.start // SEGMENT_STEPS * SEGMENT_STEPS
        sides = self._read(stream, start)

        def cut(steps: range, half: int) -> tuple[bytes, bytes]:
            place = slice((steps.start - start) * WORD_SIZE, (steps.stop - start) * WORD_SIZE)
            return sides[0][half][place], sides[1][half][place]

        compared = [_meets(part, halves) for halves in self._comparable[stream]]
        for half, pieces in enumerate(compared):
            if any(next(unequal_words(*cut(piece, half)), None) is not None for piece in pieces):
                return "differs"
        for piece in (piece for pieces in compared for piece in pieces):
            here, there = map(seen, cut(piece, 0))
            if any(a & b for a, b in zip(here, there, strict=True)):
                return "equal"
        before, after = map(seen, cut(part, 0))
        return "not observed" if before == after else "one side"

    def _read(self, stream: str, start: int) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
        """The halves of a stream in a segment, of both sides."""
        if start != self._segment:
            before, after = (
                _padded(trail.rows(start, start + SEGMENT_STEPS)) for trail in self._trails
            )
            self._segment, self._rows, self._columns = start, (before, after), {}
        if stream not in self._columns:
            before, after = self._rows
            self._columns[stream] = words(before, stream), words(after, stream)
        return self._columns[stream]


def _graver(one: State, other: State) -> State:
    return max(one, other, key=STATES.index)


def _node(trail: Trail, segment: int) -> bytes | None:
    """The digests over a segment, where they are known."""
    if segment * SEGMENT_STEPS >= trail.steps:
        return bytes(ROW_SIZE)
    if trail.segments is None or segment >= trail.segments.count:
        return None
    return trail.segments.node(segment, 0)


def _padded(rows: bytes) -> bytes:
    return rows.ljust(SEGMENT_STEPS * ROW_SIZE, b"\0")


def _cut(bucket: range) -> Iterator[range]:
    """The parts of a bucket, each of one segment."""
    start = bucket.start
    while start < bucket.stop:
        stop = min(bucket.stop, (start // SEGMENT_STEPS + 1) * SEGMENT_STEPS)
        yield range(start, stop)
        start = stop


def _lies_in(part: range, whole: range) -> bool:
    return whole.start <= part.start and part.stop <= whole.stop


def _meets(part: range, others: Sequence[range]) -> list[range]:
    both = [range(max(part.start, each.start), min(part.stop, each.stop)) for each in others]
    return [each for each in both if each]
