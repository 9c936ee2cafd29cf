"""Run a recorded program again and say whether it did the same."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from manifest import consent, launching, ranks, rebuilding, restarting, workspace
from manifest import recorded as recorded_run
from manifest.changing import Changes
from manifest.comparing import compare_trails, sentence
from manifest.dense import first_operation, operation_sentence
from manifest.errors import NotReplayable
from manifest.models import Manifest, Verdict
from manifest.planning import Plan, Wish, make_plan
from manifest.recorded import Recorded
from manifest.restarting import Laid, Place
from manifest.rundir import RunDirectory, run_directories
from manifest.signals import ENDING, handled
from manifest.verdicts import judge, was_stopped

Progress = Callable[[str], None]

_DENSE_STEPS = 3


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
    tolerance: tuple[float, float] | None = None,
    dense: range | None = None,
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
        tolerance: How far numbers may be apart, relative and absolute, where bits differ.
        dense: Steps in which to keep the fingerprint of every tensor and of every operation; the
            replay ends with them unless told otherwise. If it diverges, nothing explains it, and
            the recorded run kept none of these, the program is run once more, to see whether it
            is deterministic.
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
    if dense is not None and until is None:
        until = dense.stop
    until = until if until is not None else _steps_of_a_part(_read(original))
    interpreter = None
    if rebuild_env:
        say("making the recorded environment")
        interpreter = rebuilding.rebuild(recorded)

    def again() -> tuple[RunDirectory, Verdict]:
        with _folder(keep=keep_workspace) as folder:
            place, laid = _laid_out(original, recorded, wish, folder, say)
            place = replace(place, interpreter=interpreter)
            if keep_workspace:
                say(f"the workspace is {place.root}")
            say("running the program again")
            how = restarting.restart(recorded, original, wish, place, until=until, dense=dense)
            launched = launching.start(how, base=base)
            launched.obey()
            reasons = _of_workspace(laid)
        say("comparing")
        verdict = judge(original, launched.run, until=until, tolerance=tolerance)
        said = {"changed": changes.described(), "reasons": (*reasons, *verdict.reasons)}
        verdict = verdict.model_copy(update=said)
        launched.run.put_verdict(verdict.model_dump(mode="json"))
        return launched.run, verdict

    run, verdict = again()
    is_open = verdict.operation is None and not verdict.explanations
    if dense is not None and verdict.outcome == "diverged" and is_open:
        say("nothing explains it: once more, to see whether the program is deterministic")
        other, _ = again()
        verdict = _with_determinism(verdict, run, other)
        run.put_verdict(verdict.model_dump(mode="json"))
    return verdict


def _laid_out(
    original: RunDirectory, recorded: Recorded, wish: Wish, folder: Path, say: Progress
) -> tuple[Place, Laid | None]:
    if wish.in_place:
        return Place(recorded.home, folder), None
    say("laying out the workspace")
    laid = restarting.lay_out(recorded, original, folder)
    return Place(laid.workspace.root, folder), laid


def _of_workspace(laid: Laid | None) -> list[str]:
    """What is to be said of how the project was laid out, and of what came of it."""
    if laid is None:
        return []
    complaint = laid.workspace.complaint()
    return [*laid.reasons, *([complaint] if complaint is not None else [])]


def dense_window(
    original: RunDirectory, *, base: Path, start: int | None = None, until: int | None = None
) -> range:
    """The steps that a replay is to record densely: around where it is known to diverge.

    Args:
        original: The run to repeat.
        base: The folder that keeps runs, among them earlier replays.
        start: The first step, if it was chosen.
        until: Where the replay ends, if that was chosen.
    """
    if start is None:
        start = max(0, (_known_divergence(original, base) or 0) - 1)
    stop = until if until is not None else start + _DENSE_STEPS
    if stop <= start:
        raise NotReplayable([f"it would end at step {stop}, before step {start} is recorded"])
    return range(start, stop)


def _known_divergence(original: RunDirectory, base: Path) -> int | None:
    for run in run_directories(base):
        try:
            verdict = Verdict.model_validate(run.verdict())
        except ValueError:
            continue
        divergence = verdict.comparison.divergence if verdict.comparison is not None else None
        if verdict.original == original.id and divergence is not None:
            return divergence.step
    return None


def _with_determinism(verdict: Verdict, one: RunDirectory, other: RunDirectory) -> Verdict:
    """What a second replay, which should equal the first, says of a divergence."""
    trails = ranks.trails(one, _read(one)), ranks.trails(other, _read(other))
    found = compare_trails(*trails)
    operation = first_operation(*trails)
    if found.divergence is None and operation is None:
        reason = (
            "two replays are equal to one another: the program is deterministic here and now, and "
            "what was otherwise when it was recorded was not captured"
        )
        return verdict.model_copy(update={"reasons": (reason, *verdict.reasons)})
    said = operation_sentence(operation) if operation is not None else sentence(found)
    reason = f"the program itself is not deterministic, as two replays differ: {said}"
    return verdict.model_copy(
        update={"reasons": (reason, *verdict.reasons), "operation": operation}
    )


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

    with handled(dict.fromkeys(ENDING, end)):
        yield


def _recorded(original: RunDirectory) -> Recorded:
    return recorded_run.read(_read(original), base=original.path.parent.parent)


def _read(run: RunDirectory) -> Manifest:
    return Manifest.model_validate(run.document())


def _steps_of_a_part(manifest: Manifest) -> int | None:
    # The program was killed, told to stop, or still goes on: what comes next was not recorded.
    if not was_stopped(manifest) and manifest.status != "running":
        return None
    steps = [p.trail.steps for p in manifest.processes.values() if p.trail is not None]
    return max(steps, default=0) or None
