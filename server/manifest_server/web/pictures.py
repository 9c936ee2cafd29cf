"""Lanes and losses as shapes: places along an axis of steps, in hundredths of its width."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from manifest.lanes import State, buckets, lanes
from manifest.streams import STREAMS
from manifest.trail import Trail

BUCKETS: Final = 240
"""How many cells of a lane can be told apart."""

_MOST_TICKS = 5


@dataclass(frozen=True, slots=True)
class Bar:
    """Neighbours of one state."""

    x: float
    width: float
    state: State
    steps: range


@dataclass(frozen=True, slots=True)
class Label:
    """A text at a place of the axis."""

    x: float
    text: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Curves:
    """The losses of both runs, each as lines of points in a square of 1000 by 100."""

    lines: Sequence[Sequence[str]]
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Picture:
    """How two processes compare over some steps."""

    process: str
    steps: range
    bars: Mapping[str, Sequence[Bar]]
    """By stream."""
    ticks: Sequence[Label]
    mark: Label | None
    """Where they part."""
    end: Label | None
    """Where one side ends, if before the other."""
    curves: Curves | None = None


def draw(
    process: str, before: Trail, after: Trail, steps: range, *, parting: int | None = None
) -> Picture:
    """Draw two trails of a process over some steps.

    Args:
        process: Its name.
        before: The trail of one run.
        after: Of the other.
        steps: Which ones; there is at least one.
        parting: The step at which they part.
    """
    states = lanes(before, after, steps, BUCKETS)
    parts = buckets(steps, BUCKETS)
    mark = None
    if parting is not None and parting in steps:
        mark = _label(_place(parting, steps), f"step {parting:,}")
    return Picture(
        process=process,
        steps=steps,
        bars={stream: list(_bars(states[stream], parts, steps)) for stream in STREAMS},
        ticks=_ticks(steps),
        mark=mark,
        end=_end(before.steps, after.steps, steps),
        curves=_curves([before.losses, after.losses], steps),
    )


def _end(before: int, after: int, steps: range) -> Label | None:
    if before == after or min(before, after) not in steps:
        return None
    return _label(_place(min(before, after), steps), f"{'A' if before < after else 'B'} ends")


def _bars(states: Sequence[State], parts: Sequence[range], steps: range) -> Iterator[Bar]:
    pairs = zip(states, parts, strict=True)
    for state, group in itertools.groupby(pairs, key=lambda pair: pair[0]):
        covered = [part for _, part in group]
        whole = range(covered[0].start, covered[-1].stop)
        x = _place(whole.start, steps)
        yield Bar(x, _place(whole.stop, steps) - x, state, whole)


def _place(step: int, steps: range) -> float:
    return round(100 * (step - steps.start) / len(steps), 3)


def _label(x: float, text: str) -> Label:
    return Label(x, text, "start" if x < 12 else "end" if x > 88 else "middle")


def _ticks(steps: range) -> list[Label]:
    every = _round_step(len(steps) / _MOST_TICKS)
    first = -(-steps.start // every) * every
    return [_label(_place(step, steps), _short(step)) for step in range(first, steps.stop, every)]


def _round_step(least: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50 and so on."""
    unit: int = 10 ** max(0, math.ceil(math.log10(max(1.0, least))) - 1)
    return next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= least)


def _short(step: int) -> str:
    for unit, name in ((1_000_000, "M"), (1_000, "k")):
        if step >= 10 * unit and step % (unit // 10 or 1) == 0:
            return f"{step / unit:g}{name}"
    return str(step)


def _curves(losses: Sequence[Sequence[float]], steps: range) -> Curves | None:
    sides = [list(_extremes(each, steps)) for each in losses]
    found = [pair for side in sides for pair in side if pair is not None]
    if not found:
        return None
    low, high = min(pair[0] for pair in found), max(pair[1] for pair in found)
    if not math.isfinite(high - low):
        return None
    parts = buckets(steps, BUCKETS)
    return Curves([list(_lines(side, parts, steps, low, high)) for side in sides], low, high)


def _extremes(losses: Sequence[float], steps: range) -> Iterator[tuple[float, float] | None]:
    for part in buckets(steps, BUCKETS):
        values = losses[part.start : part.stop]
        if values and not math.isfinite(sum(values)):
            values = [value for value in values if math.isfinite(value)]
        yield (min(values), max(values)) if values else None


def _lines(
    side: Sequence[tuple[float, float] | None],
    parts: Sequence[range],
    steps: range,
    low: float,
    high: float,
) -> Iterator[str]:
    """A line for each stretch without a gap."""
    for is_there, group in itertools.groupby(
        zip(side, parts, strict=True), key=lambda pair: pair[0] is not None
    ):
        if not is_there:
            continue
        points: list[str] = []
        for pair, part in group:
            x = 10 * (_place(part.start, steps) + _place(part.stop, steps)) / 2
            # A bucket of one step is one point.
            points += [
                f"{x:.1f},{_height(value, low, high):.1f}" for value in dict.fromkeys(pair or ())
            ]
        yield " ".join(points * (2 if len(points) == 1 else 1))


def _height(value: float, low: float, high: float) -> float:
    return 96 - 92 * ((value - low) / (high - low) if high > low else 0.5)
