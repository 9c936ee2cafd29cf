"""The verdict on two runs that should be equal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from manifest import launching, ranks
from manifest.canonical import ABSENT
from manifest.comparing import compare_trails, sentence
from manifest.dense import first_operation, operation_sentence
from manifest.diffing import diff
from manifest.models import (
    Difference,
    Manifest,
    OperationDifference,
    Outcome,
    Tolerance,
    TrailComparison,
    Verdict,
)
from manifest.rundir import RunDirectory, find_blob
from manifest.tolerance import compare_numbers, explanation
from manifest.trail import Trail
from manifest.unrepeated import unrepeated
from manifest.witnesses import uncompared, unfit

_OF_THE_REPLAY = frozenset({"env.PYTHONPATH"})
"""What differs because it is a replay: the workspace has a place of its own."""

_COME_LATE = ("code", "inputs")
"""Sections that grow as the program goes on: they lack something of one that is stopped."""

Trails = Mapping[str, Trail]


def judge(
    original: RunDirectory,
    again: RunDirectory,
    *,
    until: int | None = None,
    tolerance: tuple[float, float] | None = None,
) -> Verdict:
    """Compare two runs that should be equal.

    Args:
        original: The run that was recorded.
        again: The one that should be equal to it.
        until: After how many steps the second was to stop.
        tolerance: How far numbers may be apart, relative and absolute, where bits differ.
    """
    pair = _Pair.of(original, again, until, tolerance)
    found = _found(pair)
    has_diverged = found.outcome == "diverged"
    explanations = _explanations(original, again, pair)
    named = unrepeated(pair.before, pair.comparison.divergence, is_explained=bool(explanations))
    return Verdict(
        outcome=found.outcome,
        original=original.id,
        replay=again.id,
        sentence=found.sentence,
        comparison=pair.comparison,
        explanations=explanations if has_diverged else (),
        reasons=found.reasons or (tuple(named) if has_diverged else ()),
        restores=pair.after.restores,
        tolerance=pair.numbers,
        operation=pair.operation,
    )


@dataclass(frozen=True)
class _Pair:
    """Two runs, and what comes of comparing them."""

    before: Manifest
    after: Manifest
    trails: tuple[Trails, Trails]
    until: int | None
    comparison: TrailComparison
    operation: OperationDifference | None
    numbers: Tolerance | None

    @classmethod
    def of(
        cls,
        original: RunDirectory,
        again: RunDirectory,
        until: int | None,
        tolerance: tuple[float, float] | None,
    ) -> _Pair:
        before, after = (Manifest.model_validate(run.document()) for run in (original, again))
        trails = ranks.trails(original, before), ranks.trails(again, after)
        if until is not None:
            for trail in trails[1].values():
                trail.final = None  # where it was stopped is no end of the program's
        comparison = compare_trails(*trails)
        numbers = None
        if tolerance is not None and comparison.divergence is not None:
            numbers = compare_numbers(*trails, rtol=tolerance[0], atol=tolerance[1])
        operation = first_operation(*trails)
        return cls(before, after, trails, until, comparison, operation, numbers)


class _Found(NamedTuple):
    outcome: Outcome
    sentence: str
    reasons: tuple[str, ...] = ()


def _found(pair: _Pair) -> _Found:
    if pair.comparison.divergence is not None:
        return _parted(pair)
    said = sentence(pair.comparison)
    doubt = unfit((pair.before, pair.trails[0]), (pair.after, pair.trails[1]), until=pair.until)
    if doubt is not None:
        return _Found("not replayable", f"{doubt}; {said}", (doubt,))
    problem = _unequal_lengths(pair)
    if problem is not None and pair.comparison.steps == 0 and pair.after.status != "finished":
        return _Found("not replayable", problem, (problem,))
    if problem is not None:
        return _Found("diverged", f"{said}; {problem}")
    missing = uncompared(pair.before, pair.after, pair.comparison)
    if missing is not None:
        return _Found("not replayable", missing, (missing,))
    return _Found("identical", said)


def _parted(pair: _Pair) -> _Found:
    said = sentence(pair.comparison)
    if pair.operation is not None:
        said = f"{said}; {operation_sentence(pair.operation)}"
    if pair.numbers is None:
        return _Found("diverged", said)
    problem = _unequal_lengths(pair)
    ended = f"; {problem}" if problem is not None else ""
    is_within = pair.numbers.is_within and problem is None
    told = f"{explanation(pair.numbers)}; bits: {said}{ended}"
    return _Found("within tolerance" if is_within else "diverged", told)


def _unequal_lengths(pair: _Pair) -> str | None:
    was_cut = was_stopped(pair.before)
    return _unequal_ends(pair.before, pair.after, pair.comparison, pair.until) or _unequal_trails(
        *pair.trails, pair.until, was_cut=was_cut
    )


def _unequal_ends(
    before: Manifest, after: Manifest, comparison: TrailComparison, until: int | None
) -> str | None:
    was_cut = until is not None or was_stopped(before)
    steps_before, steps_after = comparison.steps_before, comparison.steps_after
    if steps_after < (min(steps_before, until) if until is not None else steps_before):
        reason = after.error or f"exit code {after.exit_code}"
        return f"the replay ended after {steps_after} of {steps_before} steps: {reason}"
    if was_cut:
        return None
    if steps_after > steps_before:
        return f"the replay went on to step {steps_after}, the recorded run ended at {steps_before}"
    return _unequal_exits(before, after)


def _unequal_exits(before: Manifest, after: Manifest) -> str | None:
    reason = f" ({after.error})" if after.error else ""
    if before.exit_code is None or after.exit_code is None:
        # Who recorded itself does not know its exit code, only what was raised.
        if _has_failed(before) == _has_failed(after):
            return None
        ends = ["failed" if _has_failed(run) else "went well" for run in (before, after)]
        return f"the end of the recorded run {ends[0]}, that of the replay {ends[1]}{reason}"
    if before.exit_code == after.exit_code:
        return None
    return (
        f"the recorded run ended with exit code {before.exit_code}, "
        f"the replay with {after.exit_code}{reason}"
    )


def _has_failed(run: Manifest) -> bool:
    return run.error is not None or run.status == "crashed"


def _unequal_trails(
    before: Mapping[str, Trail], after: Mapping[str, Trail], until: int | None, *, was_cut: bool
) -> str | None:
    for process in sorted(before.keys() | after.keys()):
        wanted, found = (runs[process].steps if process in runs else 0 for runs in (before, after))
        wanted = wanted if until is None else min(wanted, until)
        # What would have begun after the step at which the replay was stopped is not missed.
        is_missed = until is None or found or process.startswith("rank ")
        if found < wanted and is_missed:
            return f"in the replay {process} ended after {found} of {wanted} steps"
        if found > wanted and not was_cut:
            return f"in the replay {process} made {found} steps, in the recorded run {wanted}"
    return None


def was_stopped(run: Manifest) -> bool:
    """Whether a run did not end by itself."""
    return run.status == "crashed" or any(note.where == launching.STOPPED for note in run.notes)


def _explanations(
    original: RunDirectory, again: RunDirectory, pair: _Pair
) -> tuple[Difference, ...]:
    found = diff(pair.before, pair.after, blobs=lambda digest: find_blob((original, again), digest))
    was_cut = pair.until is not None
    return tuple(
        item
        for item in found.differences
        if item.impact in ("certain", "possible")
        and item.key not in _OF_THE_REPLAY
        and not (was_cut and _is_lacking(item))
    )


def _is_lacking(item: Difference) -> bool:
    """Whether the second run merely has not imported or read all that the first one did."""
    if item.section not in _COME_LATE:
        return False
    if isinstance(item.before, list) and isinstance(item.after, list):
        return all(each in item.before for each in item.after)
    return not item.was_captured_after or item.after == ABSENT
