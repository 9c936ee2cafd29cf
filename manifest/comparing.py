"""Where two runs went apart: the first fingerprint on which their trails do not agree.

Within one step, streams are looked at in the order in which one makes the next: batch, loss,
gradient, parameter, and the generators as they were left. One exception: generators that differ
already at the very first step come first, as there is no earlier row to show that they once were
equal, and a missing or other seed is what makes all the rest differ.

A stream that one side did not observe at a step is not compared there; nor are generators, where
the rows of the two sides digest different ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from manifest.coverage import comparable, cover
from manifest.leaves import OWN, SHARED
from manifest.models import Divergence, TrailComparison
from manifest.segments import SEGMENT_STEPS, unlike
from manifest.streams import STREAMS, WORD_SIZE, unequal_words, words
from manifest.trail import Trail

_CAUSAL = ("batch", "loss", "grad", "param", "rng")
_BLOCK_STEPS = 2**15


def compare_trails(before: Mapping[str, Trail], after: Mapping[str, Trail]) -> TrailComparison:
    """Find the earliest divergence over all processes that both runs have.

    Args:
        before: The trails of one run, by process.
        after: Those of the other.
    """
    pairs = {
        process: _Pair(process, before[process], after[process])
        for process in sorted(before.keys() & after.keys(), key=lambda name: (len(name), name))
        if before[process].algorithm == after[process].algorithm
    }
    found = [divergence for pair in pairs.values() if (divergence := pair.divergence())]
    first = min(found, key=_cause, default=None)
    compared = {stream for pair in pairs.values() for stream in pair.streams()}
    covered = [(pair.steps, cover(pair.before, pair.after)) for pair in pairs.values()]
    return TrailComparison(
        steps=max((pair.steps for pair in pairs.values()), default=0),
        streams=tuple(stream for stream in STREAMS if stream in compared),
        divergence=first,
        steps_before=max((trail.steps for trail in before.values()), default=0),
        steps_after=max((trail.steps for trail in after.values()), default=0),
        gaps={
            stream: sum(each.compared[stream] for _, each in covered)
            for stream in STREAMS
            if stream in compared and any(each.compared[stream] < n for n, each in covered)
        },
        one_sided={
            stream: min(each.one_sided[stream] for _, each in covered if stream in each.one_sided)
            for stream in STREAMS
            if any(stream in each.one_sided for _, each in covered)
        },
    )


def _cause(divergence: Divergence) -> tuple[int, int]:
    # What one process has otherwise reaches the others within the step, through their gradients.
    is_start = divergence.step == 0 and divergence.stream == "rng"
    return divergence.step, -1 if is_start else _CAUSAL.index(divergence.stream)


def sentence(comparison: TrailComparison) -> str:
    """Say in one sentence what came of a comparison.

    Example:
        >>> same = TrailComparison(steps=3, streams=("loss",), steps_before=3, steps_after=3)
        >>> sentence(same)
        'equal in all 3 steps: the loss'
    """
    if comparison.divergence is not None:
        return _parting(comparison, comparison.divergence)
    if not comparison.streams:
        return "nothing to compare: no fingerprint was taken in both runs"
    said = _listed([_compared(stream, comparison) for stream in comparison.streams])
    if comparison.steps == 0:
        return f"equal at the end, with no training step: {said}"
    if comparison.steps_before == comparison.steps_after:
        return f"equal in all {_steps(comparison.steps)}: {said}"
    return (
        f"equal in the {_steps(comparison.steps)} that both runs have: {said}; one has "
        f"{comparison.steps_before} and the other {comparison.steps_after}"
    )


@dataclass(frozen=True)
class _Pair:
    """The two trails of one process."""

    process: str
    before: Trail
    after: Trail

    @property
    def steps(self) -> int:
        return min(self.before.steps, self.after.steps)

    def streams(self) -> set[str]:
        both = set(self.before.streams()) & set(self.after.streams())
        if not self._compares_generators():
            both.discard("rng")
        if self.before.final is not None and self.after.final is not None and self._are_as_long():
            both |= {stream for stream, a, b in self._ends() if a.keys() & b.keys()}
        return both

    def divergence(self) -> Divergence | None:
        step = self._first_unequal_step()
        if step is None:
            return self._divergence_at_end() if self._are_as_long() else None
        unequal, equal = self._streams_at(step)
        stream = "rng" if step == 0 and "rng" in unequal else unequal[0]
        tensors, tensors_step = self._tensors(step, stream)
        return Divergence(
            process=self.process,
            step=step,
            stream=stream,
            tensors=tensors,
            tensors_step=tensors_step if tensors_step != step else None,
            equal_streams=tuple(s for s in STREAMS if s in equal),
            since=self._since(step) if stream in ("loss", "grad", "param") else None,
        )

    def _since(self, step: int) -> int | None:
        # What a parameter has otherwise stays in it, seen or not.
        if not {"param"} <= set(self.before.streams()) & set(self.after.streams()):
            return None
        last = next((s for s in range(step - 1, -1, -1) if self._is_compared(s, "param")), -1)
        return last + 1 if last < step - 1 else None

    def _is_compared(self, step: int, stream: str) -> bool:
        return None not in (self.before.digest(step, stream), self.after.digest(step, stream))

    def _are_as_long(self) -> bool:
        return self.before.steps == self.after.steps

    def _first_unequal_step(self) -> int | None:
        for steps in self._suspects():
            rows_before, rows_after = self._rows(steps)
            if rows_before == rows_after:
                continue
            found = [
                row
                for stream in STREAMS
                for row in self._unequal_rows(stream, steps, rows_before, rows_after)
            ]
            if found:
                return min(found)
        return None

    def _suspects(self) -> Iterator[range]:
        """Steps that may hold the first difference, in order."""
        before, after = self.before.segments, self.after.segments
        start = 0
        if before is not None and after is not None:
            for segment in unlike(before, after):
                if not (
                    self.before.agrees(before, segment) and self.after.agrees(after, segment)
                ):  # the digests are not of these rows: none of them tells anything
                    yield from _blocks(0, self.steps)
                    return
                yield range(segment * SEGMENT_STEPS, (segment + 1) * SEGMENT_STEPS)
            start = min(before.count, after.count) * SEGMENT_STEPS
        yield from _blocks(start, self.steps)

    def _rows(self, steps: range) -> tuple[bytes, bytes]:
        return (
            self.before.rows(steps.start, steps.stop),
            self.after.rows(steps.start, steps.stop),
        )

    def _unequal_rows(
        self, stream: str, steps: range, rows_before: bytes, rows_after: bytes
    ) -> Iterator[int]:
        """The first step at which each half of a stream differs."""
        halves = zip(words(rows_before, stream), words(rows_after, stream), strict=True)
        for parts, (before, after) in zip(self._comparable(stream), halves, strict=True):
            for part in parts:
                low, high = max(part.start, steps.start), min(part.stop, steps.stop)
                cut = slice((low - steps.start) * WORD_SIZE, (high - steps.start) * WORD_SIZE)
                if (
                    low < high
                    and (found := next(unequal_words(before[cut], after[cut]), None)) is not None
                ):
                    yield low + found
                    break

    def _compares_generators(self) -> bool:
        before, after = self._rows(range(min(self.steps, 1)))
        return words(before, "rng") == words(after, "rng") or any(self._comparable("rng"))

    def _comparable(self, stream: str) -> tuple[Sequence[range], Sequence[range]]:
        return self._comparable_halves[stream]

    @cached_property
    def _comparable_halves(self) -> dict[str, tuple[Sequence[range], Sequence[range]]]:
        return {stream: comparable(self.before, self.after, stream) for stream in STREAMS}

    def _streams_at(self, step: int) -> tuple[list[str], list[str]]:
        unequal: list[str] = []
        equal: list[str] = []
        here = range(step, step + 1)
        rows = self._rows(here)
        for stream in _CAUSAL:
            if any(True for _ in self._unequal_rows(stream, here, *rows)):
                unequal.append(stream)
            elif self._is_compared_at(stream, step):
                equal.append(stream)
        return unequal, equal

    def _is_compared_at(self, stream: str, step: int) -> bool:
        if None in (self.before.digest(step, stream), self.after.digest(step, stream)):
            return False
        return any(step in part for half in self._comparable(stream) for part in half)

    def _tensors(self, step: int, stream: str) -> tuple[tuple[str, ...], int | None]:
        kinds = (SHARED, OWN) if stream == "rng" else (stream,)
        kept = {s for kind in kinds for s in self._leaf_steps(kind) if s >= step}
        for candidate in sorted(kept):
            names: tuple[str, ...] = ()
            for kind in kinds:
                a = self.before.leaves.at(candidate, kind)
                b = self.after.leaves.at(candidate, kind)
                names += _unequal_names(a or {}, b or {})
            if names:
                return names, candidate
        return (), None

    def _leaf_steps(self, kind: str) -> set[int]:
        return {*self.before.leaves.steps(kind)} & {*self.after.leaves.steps(kind)}

    def _divergence_at_end(self) -> Divergence | None:
        unequal = {stream: _unequal_names(a, b) for stream, a, b in self._ends()}
        equal = tuple(
            stream for stream, a, b in self._ends() if a.keys() & b.keys() and not unequal[stream]
        )
        for stream in _CAUSAL:
            if names := unequal.get(stream):
                return Divergence(
                    process=self.process,
                    step=self.steps,
                    stream=stream,
                    tensors=names if stream in ("param", "rng") else (),
                    equal_streams=equal,
                )
        return None

    def _ends(self) -> Iterator[tuple[str, Mapping[str, str], Mapping[str, str]]]:
        a, b = self.before.final, self.after.final
        if a is None or b is None:
            return
        yield "rng", a.rng, b.rng
        yield "param", a.tensors, b.tensors
        for stream in ("batch", "loss"):
            yield stream, _only(a.left, stream), _only(b.left, stream)


def _blocks(start: int, stop: int) -> Iterator[range]:
    for begin in range(start, stop, _BLOCK_STEPS):
        yield range(begin, min(begin + _BLOCK_STEPS, stop))


def _unequal_names(before: Mapping[str, object], after: Mapping[str, object]) -> tuple[str, ...]:
    # What only one side has says that names were not found, or objects already gone, not that
    # bits differ.
    return tuple(name for name in before if name in after and before[name] != after[name])


def _only(mapping: Mapping[str, str], key: str) -> dict[str, str]:
    return {key: mapping[key]} if key in mapping else {}


WORDS: Final = {
    "rng": "the generators",
    "batch": "the batch",
    "loss": "the loss",
    "grad": "the gradients",
    "param": "the parameters",
}
"""What each stream is, for people."""


def _compared(stream: str, comparison: TrailComparison) -> str:
    words = WORDS[stream]
    return f"{words} (at {comparison.gaps[stream]})" if stream in comparison.gaps else words


def _parting(comparison: TrailComparison, found: Divergence) -> str:
    where = _place(found.process)
    at_end = found.step >= comparison.steps and found.step >= comparison.steps_before
    if at_end:
        start = "equal in every step" if comparison.steps else "equal as far as it was observed"
        return f"{where}{start}; at the end of the process {_subject(found)}"
    start = f"equal to step {found.step - 1}; " if found.step else ""
    why = reason(found)
    said = f"at step {found.step} {_equal_clause(found)}{_subject(found)}{why and f': {why}'}"
    are_drawn_alike = found.stream == "rng" or "rng" in found.equal_streams
    too = (
        "" if are_drawn_alike or "rng" not in comparison.streams else "; the generators differ too"
    )
    return f"{where}{start}{said}{too}{_spread(found)}"


def _spread(found: Divergence) -> str:
    if found.since is None:
        return ""
    seen = f"last compared at step {found.since - 1}" if found.since else "not compared before"
    return f" (the parameters were {seen}: what parted the runs came after)"


def _place(process: str) -> str:
    if process == "main":
        return ""
    return f"on {process}, " if process.startswith("rank ") else f"in `{process}`, "


def _equal_clause(found: Divergence) -> str:
    causes = _CAUSAL[: _CAUSAL.index(found.stream)]
    earlier = [stream for stream in causes if stream in found.equal_streams]
    if not earlier:
        return ""
    verb = "is" if len(earlier) == 1 and earlier[0] in ("batch", "loss") else "are"
    return f"{_listed([WORDS[stream] for stream in earlier])} {verb} equal and "


def _subject(found: Divergence) -> str:
    if found.stream not in ("grad", "param") or not found.tensors:
        named = f" ({', '.join(found.tensors)})" if found.stream == "rng" and found.tensors else ""
        verb = "differs" if found.stream in ("batch", "loss") else "differ"
        return f"{WORDS[found.stream]}{named} {verb}"
    # Gradients are made from the last layer to the first: the last one that differs was made first.
    name = found.tensors[-1 if found.stream == "grad" else 0]
    kind = "the gradient of" if found.stream == "grad" else "the parameter"
    others = len(found.tensors) - 1
    more = f" and of {others} more" if others and found.stream == "grad" else ""
    more = f" and {others} more" if others and found.stream == "param" else more
    later = f" (seen at step {found.tensors_step})" if found.tensors_step is not None else ""
    return f"{kind} `{name}`{more}{later} {'differ' if others else 'differs'}"


def reason(found: Divergence) -> str:
    """What a divergence in this stream speaks for; empty where it speaks for nothing."""
    if found.stream == "rng":
        return "seeds, or numbers drawn by one run only"
    if found.stream == "batch":
        return "data, before any computation"
    if found.stream == "param" and "grad" in found.equal_streams:
        return "the update of the optimizer, not the gradients"
    if "batch" in found.equal_streams:
        return "compute, not data"
    return ""


def _listed(words: list[str]) -> str:
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps"
