"""At how many steps each stream of two trails was compared, and where only one of them saw it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from manifest.trail import STREAMS, Trail, column

_BLOCK_STEPS = 2**15
_NOTHING = bytes(8)  # half a digest; that a real one is zero is as likely as two equal ones


@dataclass(frozen=True, slots=True)
class Coverage:
    """What was compared of two trails, as far as both go."""

    compared: Mapping[str, int]
    """By stream, the number of steps at which both saw it."""
    one_sided: Mapping[str, int]
    """By stream, the first step at which only one of them saw it; none where there is none."""


def cover(before: Trail, after: Trail) -> Coverage:
    """Count what the trails of one process in two runs have in common."""
    compared = dict.fromkeys(STREAMS, 0)
    one_sided: dict[str, int] = {}
    steps = min(before.steps, after.steps)
    for start in range(0, steps, _BLOCK_STEPS):
        stop = min(start + _BLOCK_STEPS, steps)
        rows_before, rows_after = before.rows(start, stop), after.rows(start, stop)
        are_equal = rows_before == rows_after
        for stream in STREAMS:
            here = _seen(rows_before, stream)
            there = here if are_equal else _seen(rows_after, stream)
            if here == there:
                compared[stream] += here.count(1)
                continue
            compared[stream] += sum(a & b for a, b in zip(here, there, strict=True))
            unlike = bytes(a ^ b for a, b in zip(here, there, strict=True))
            one_sided.setdefault(stream, start + unlike.index(1))
    return Coverage(compared, one_sided)


def _seen(rows: bytes, stream: str) -> bytes:
    """A byte for each step: 1 where there is a digest."""
    words = column(rows, stream)
    halves = words[: len(words) // 2]
    count = len(halves) // 8
    if _NOTHING not in halves:
        return b"\1" * count
    return bytes(halves[place : place + 8] != _NOTHING for place in range(0, len(halves), 8))
