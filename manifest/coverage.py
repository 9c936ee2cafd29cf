"""At how many steps each stream of two trails was compared, and where only one of them saw it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from manifest.leaves import OWN, SHARED, same_names
from manifest.segments import SEGMENT_STEPS
from manifest.streams import STREAMS, WORD_SIZE, words
from manifest.trail import Trail

_BLOCK_STEPS = 2**15
_NOTHING = bytes(WORD_SIZE)  # half a digest; that a real one is zero is as likely as two equal ones


@dataclass(frozen=True, slots=True)
class Coverage:
    """What was compared of two trails, as far as both go."""

    compared: Mapping[str, int]
    """By stream, the number of steps at which both saw it."""
    one_sided: Mapping[str, int]
    """By stream, the first step at which only one of them saw it; none where there is none."""


def cover(before: Trail, after: Trail) -> Coverage:
    """Count what the trails of one process in two runs have in common."""
    steps = min(before.steps, after.steps)
    covered, complete, unseen = _known(before, after)
    compared = {stream: covered if stream in complete else 0 for stream in STREAMS}
    one_sided: dict[str, int] = {}
    starts = {stream: covered if stream in complete | unseen else 0 for stream in STREAMS}
    for start in range(min(starts.values()), steps, _BLOCK_STEPS):
        stop = min(start + _BLOCK_STEPS, steps)
        rows_before, rows_after = before.rows(start, stop), after.rows(start, stop)
        are_equal = rows_before == rows_after
        for stream in STREAMS:
            if start < starts[stream]:
                continue
            here = _seen(rows_before, stream)
            there = here if are_equal else _seen(rows_after, stream)
            if here == there:
                compared[stream] += here.count(1)
                continue
            compared[stream] += sum(a & b for a, b in zip(here, there, strict=True))
            unlike = bytes(a ^ b for a, b in zip(here, there, strict=True))
            one_sided.setdefault(stream, start + unlike.index(1))
    return Coverage(compared, one_sided)


def comparable(before: Trail, after: Trail, stream: str) -> tuple[Sequence[range], Sequence[range]]:
    """The steps at which each half of a stream tells of the same things on both sides."""
    steps = min(before.steps, after.steps)
    if stream != "rng":
        return [range(steps)], [range(steps)]
    own: Sequence[range] = []
    if all(trail.has_own and trail.leaves.steps(OWN) for trail in (before, after)):
        own = same_names(before.leaves, after.leaves, OWN, steps)
    return same_names(before.leaves, after.leaves, SHARED, steps), own


def _known(before: Trail, after: Trail) -> tuple[int, frozenset[str], frozenset[str]]:
    """How many steps segments of both cover; the streams that both saw at all of them, or none."""
    if before.segments is None or after.segments is None:
        return 0, frozenset(), frozenset()
    if before.segments.count != after.segments.count:
        return 0, frozenset(), frozenset()  # the nodes cover other steps
    both = before.segments.complete() & after.segments.complete()
    none = frozenset(STREAMS) - before.segments.observed() - after.segments.observed()
    # In whole blocks, so that rows are read from where a block begins.
    steps = before.segments.count * SEGMENT_STEPS // _BLOCK_STEPS * _BLOCK_STEPS
    return steps, both, none


def _seen(rows: bytes, stream: str) -> bytes:
    halves, _ = words(rows, stream)
    return seen(halves)


def seen(halves: bytes) -> bytes:
    """A byte for each first half of a digest: 1 where there is one."""
    count = len(halves) // WORD_SIZE
    if _NOTHING not in halves:
        return b"\1" * count
    return bytes(word != 0 for word in memoryview(halves).cast("Q"))
