"""Run a recorded program again and say whether it did the same."""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from manifest import consent, launching, ranks, rebuilding, restarting, workspace
from manifest import recorded as recorded_run
from manifest.changing import Changes
from manifest.comparing import compare_trails, sentence
from manifest.diffing import diff
from manifest.errors import NotReplayable
from manifest.models import Difference, Manifest, TrailComparison, Verdict
from manifest.planning import Plan, Wish, make_plan
from manifest.recorded import Recorded
from manifest.restarting import Place
from manifest.rundir import RunDirectory, find_blob
from manifest.trail import Trail
from manifest.unrepeated import unrepeated
from manifest.witnesses import uncompared, unfit

Progress = Callable[[str], None]

_ENDING = (signal.SIGTERM, signal.SIGHUP)
_OF_THE_REPLAY = frozenset({"env.PYTHONPATH"})
"""What differs because it is a replay: the workspace has a place of its own."""


def plan(original: RunDirectory, *, wish: Wish | None = None) -> Plan:
    """What a replay of this run needs, without running anything of it.

    Args:
        original: The run to repeat.
        wish: How the replay is asked for. What a stranger's manifest names is never run to look.

    Raises:
        NotReplayable: The manifest is not what Manifest writes.
    """
    wish = wish or Wish()
    if consent.stranger(original) is not None:
        wish = replace(wish, may_run=False)
    return make_plan(_recorded(original), original, wish)


def question(original: RunDirectory, *, wish: Wish | None = None) -> str | None:
    """What to ask before this run is replayed; None where this user recorded it here."""
    return consent.question(original, _recorded(original), wish or Wish())


def replay(
    original: RunDirectory,
    *,
    base: Path,
    best_effort: bool = False,
    in_place: bool = False,
    until: int | None = None,
    extra_args: Sequence[str] = (),
    changes: Changes | None = None,
    rebuild_env: bool = False,
    keep_workspace: bool = False,
    is_agreed: bool = False,
    made: Plan | None = None,
    on_progress: Progress | None = None,
) -> Verdict:
    """Run the program of `original` again from its recorded start, and compare step by step.

    Args:
        original: The run to repeat.
        base: The folder that keeps runs; the replay is a run of its own.
        best_effort: Go on although something that can change the bits cannot be put back.
        in_place: Run in the user's own folder instead of a copy.
        until: Stop the program after so many steps.
        extra_args: Further arguments for the program.
        changes: What to do otherwise on purpose.
        rebuild_env: Install the recorded packages anew, apart from the user's, and use those.
        keep_workspace: Leave the copy of the project where it is, and say where.
        is_agreed: Run it although someone else recorded it.
        made: The plan of this replay, where the caller has it already.
        on_progress: Told what happens next, in a few words.

    Raises:
        NotAgreed: Someone else recorded it, and `is_agreed` is not set.
        NotReplayable: Something that is needed cannot be put back.
        KeyboardInterrupt: Someone stopped the program; there is no verdict then.
    """
    say = on_progress or (lambda what: None)
    changes = replace(changes or Changes(), arguments=tuple(extra_args))
    wish = Wish(in_place=in_place, is_rebuilt=rebuild_env, changes=changes)
    recorded = _recorded(original)
    consent.check(original, recorded, wish, is_agreed=is_agreed)
    made = made or make_plan(recorded, original, wish)
    if made.blocking and not best_effort:
        raise NotReplayable([f"{item.what}: {item.why}" for item in made.blocking])
    until = until if until is not None else _steps_of_a_stopped(_read(original))
    interpreter = None
    if rebuild_env:
        say("making the recorded environment")
        interpreter = rebuilding.rebuild(recorded)
    with _folder(keep=keep_workspace) as folder:
        reasons: list[str] = []
        laid = None
        if not in_place:
            say("laying out the workspace")
            laid = restarting.lay_out(recorded, original, folder)
            reasons += laid.reasons
        root = recorded.home if laid is None else laid.workspace.root
        if keep_workspace:
            say(f"the workspace is {root}")
        say("running the program again")
        place = Place(root, folder, interpreter)
        how = restarting.restart(recorded, original, wish, place, until=until)
        launched = launching.start(how, base=base)
        if launched.was_interrupted:
            raise KeyboardInterrupt
        if launched.told_to_stop is not None:
            raise SystemExit(128 + launched.told_to_stop)
        if laid is not None and (complaint := laid.workspace.complaint()) is not None:
            reasons.append(complaint)
    say("comparing")
    verdict = judge(original, launched.run, until=until)
    verdict = verdict.model_copy(
        update={"changed": changes.described(), "reasons": (*reasons, *verdict.reasons)}
    )
    launched.run.put_verdict(verdict.model_dump(mode="json"))
    return verdict


@contextmanager
def _folder(*, keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="manifest-replay-"))
    try:
        with _ended_by_signals():
            yield folder
    finally:
        if not keep:
            workspace.remove(folder)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """End as after an exception when told to end, so that nothing is left behind."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, end) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _recorded(original: RunDirectory) -> Recorded:
    return recorded_run.read(_read(original), base=original.path.parent.parent)


def judge(original: RunDirectory, again: RunDirectory, *, until: int | None = None) -> Verdict:
    """Compare two runs that should be equal."""
    before, after = _read(original), _read(again)
    trails = ranks.trails(original, before), ranks.trails(again, after)
    if until is not None:
        for trail in trails[1].values():
            trail.final = None  # where it was stopped is no end of the program's
    comparison = compare_trails(*trails)
    explanations = _explanations(original, before, again, after)
    named = tuple(unrepeated(before, comparison.divergence, is_explained=bool(explanations)))

    def verdict(outcome: Any, said: str, reasons: tuple[str, ...] = ()) -> Verdict:
        return Verdict(
            outcome=outcome,
            original=original.id,
            replay=again.id,
            sentence=said,
            comparison=comparison,
            explanations=explanations if outcome == "diverged" else (),
            reasons=reasons or (named if outcome == "diverged" else ()),
            restores=after.restores,
        )

    if comparison.divergence is not None:
        return verdict("diverged", sentence(comparison))
    doubt = unfit((before, trails[0]), (after, trails[1]), until=until)
    if doubt is not None:
        return verdict("not replayable", f"{doubt}; {sentence(comparison)}", (doubt,))
    problem = _unequal_ends(before, after, comparison, until) or _unequal_trails(
        *trails, until, was_cut=_was_stopped(before)
    )
    if problem is not None and comparison.steps == 0 and after.status != "finished":
        return verdict("not replayable", problem, (problem,))
    if problem is not None:
        return verdict("diverged", f"{sentence(comparison)}; {problem}")
    missing = uncompared(before, after, comparison)
    if missing is not None:
        return verdict("not replayable", missing, (missing,))
    return verdict("identical", sentence(comparison))


def _unequal_ends(
    before: Manifest, after: Manifest, comparison: TrailComparison, until: int | None
) -> str | None:
    was_cut = until is not None or _was_stopped(before)
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


def _read(run: RunDirectory) -> Manifest:
    return Manifest.model_validate(run.document())


def _was_stopped(run: Manifest) -> bool:
    return run.status == "crashed" or any(note.where == launching.STOPPED for note in run.notes)


def _steps_of_a_stopped(manifest: Manifest) -> int | None:
    # The program was killed, or told to stop: what it would have done next was never recorded.
    if not _was_stopped(manifest):
        return None
    steps = [p.trail.steps for p in manifest.processes.values() if p.trail is not None]
    return max(steps, default=0) or None


def _explanations(
    original: RunDirectory, before: Manifest, again: RunDirectory, after: Manifest
) -> tuple[Difference, ...]:
    found = diff(before, after, blobs=lambda digest: find_blob((original, again), digest))
    return tuple(
        item
        for item in found.differences
        if item.impact in ("certain", "possible") and item.key not in _OF_THE_REPLAY
    )
