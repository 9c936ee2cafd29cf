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
        known: dict[str, State] = dict.fromkeys(STREAMS, "not observed")
        for part in _cut(bucket):
            for stream in STREAMS:
                if known[stream] != "differs":
                    known[stream] = max(known[stream], pair.state(stream, part), key=STATES.index)
        for stream, state in known.items():
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

    def state(self, stream: str, part: range) -> State:
        """Of steps that are all of one segment."""
        return self._by_digests(stream, part) or self._by_rows(stream, part)

    def _by_digests(self, stream: str, part: range) -> State | None:
        """What the digests over the segment say; None where that is not enough."""
        nodes = [_node(trail, part.start // SEGMENT_STEPS) for trail in self._trails]
        if nodes[0] is None or nodes[1] is None:
            return None
        before, after = (digests(node).get(stream) for node in nodes if node is not None)
        if before is None and after is None:
            return "not observed"
        are_complete = all(cell is None or is_complete(cell) for cell in (before, after))
        if not (are_complete or len(part) == SEGMENT_STEPS):
            return None
        if before is None or after is None:
            return "one side"
        if not any(_lies_in(part, each) for each in self._comparable[stream][0]):
            return None
        if before == after:
            return "equal"
        # Of generators one half may be known on one side alone.
        is_certain = are_complete and len(part) == SEGMENT_STEPS and stream != "rng"
        return "differs" if is_certain else None

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
