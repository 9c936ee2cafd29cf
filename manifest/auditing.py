"""Run a program twice from one start: whether it is reproducible, and where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

from manifest import launching, replaying
from manifest.dense import operation_sentence
from manifest.doubts import doubts
from manifest.environment.given import STDIN
from manifest.errors import NotReplayable
from manifest.lints import has_trained
from manifest.models import Audit, AuditOutcome, Doubt, Manifest, Verdict
from manifest.replaying import Progress
from manifest.rundir import RunDirectory
from manifest.verdicts import was_stopped

_MOST_DENSE_STEPS = 16
"""How many steps before a divergence are looked at operation by operation, which is slow."""


def audit(
    command: Sequence[str],
    *,
    base: Path,
    project: str | None = None,
    until: int | None = None,
    is_dense: bool = False,
    on_progress: Progress | None = None,
) -> Audit:
    """Record a program, replay it, and say what came of that and what to mend.

    Args:
        command: The program and its arguments; a ``.py`` file is run by this interpreter.
        base: The folder that keeps runs; all of them are kept.
        project: What the runs belong to; by default the name of the folder.
        until: Stop the program after so many steps, both times.
        is_dense: Where the runs part, run the program twice more to there with the fingerprint of
            every operation, so that the first that differs is named.
        on_progress: Told what happens next, in a few words.

    Raises:
        NotRecordable: There is no such program, or the run cannot be kept.
        KeyboardInterrupt: Someone stopped the program.
    """
    say = on_progress or (lambda what: None)

    def record(until: int | None, dense: range | None = None) -> RunDirectory:
        launched = launching.launch(command, base=base, project=project, until=until, dense=dense)
        launched.obey()
        return launched.run

    say("running the program, the first of two times")
    run = record(until)
    first = Manifest.model_validate(run.document())
    if _fails(first) and not has_trained(first):
        reason = f"the program itself fails before its first training step: {_failure(first)}"
        return _not_judged(first, reason)
    try:
        verdict = replaying.replay(run, base=base, until=until, on_progress=on_progress)
    except NotReplayable as error:
        reason = f"it cannot be run again as it was: {'; '.join(error.reasons)}"
        return _not_judged(first, reason)
    window = _window(verdict) if is_dense else None
    if window is not None:
        say(f"running it twice more to step {window.stop - 1}, operation by operation")
        run = record(window.stop, window)
        verdict = _with_operation(verdict, replaying.replay(run, base=base, dense=window))
    return _judged(first, verdict, doubts(first, verdict))


def _fails(run: Manifest) -> bool:
    return run.status == "failed" or was_stopped(run)


def _failure(run: Manifest) -> str:
    return shorten(run.error or f"exit code {run.exit_code}", 120, placeholder=" …")


def _not_judged(first: Manifest, sentence: str) -> Audit:
    found = tuple(doubts(first))
    return Audit(outcome="not judged", run=first.id, sentence=sentence, doubts=found)


def _window(verdict: Verdict) -> range | None:
    """The steps in which to look for the first operation, of runs that parted."""
    comparison = verdict.comparison
    if comparison is None or comparison.divergence is None or not comparison.steps:
        return None
    stop = min(comparison.divergence.step + 1, comparison.steps)
    return range(max(0, stop - _MOST_DENSE_STEPS), stop)


def _with_operation(verdict: Verdict, again: Verdict) -> Verdict:
    if again.operation is not None:
        said = operation_sentence(again.operation)
    elif again.outcome == "diverged":
        said = f"run twice more, operation by operation, it parted otherwise: {again.sentence}"
    else:
        said = "run twice more, operation by operation, it did not differ, so chance decides"
    sentence = f"{verdict.sentence}; {said}"
    return verdict.model_copy(update={"sentence": sentence, "operation": again.operation})


def _judged(first: Manifest, verdict: Verdict, found: Sequence[Doubt]) -> Audit:
    again = [each for each in found if each.state == "given again" and each.impact == "certain"]
    outcome: AuditOutcome = "reproducible"
    sentence = verdict.sentence
    if verdict.outcome == "diverged":
        outcome = "not reproducible"
        sentence += _of_input(first)
    elif verdict.outcome == "not replayable":
        outcome = "not judged"
        sentence += _of_input(first)
    elif _fails(first):
        outcome = "not judged"
        sentence = f"the program itself fails, both times: {_failure(first)}; until then {sentence}"
    elif again:
        outcome = "reproducible when replayed"
        places = ", ".join(each.place or each.what for each in again)
        sentence = (
            f"{sentence}, but only because the same entropy was given again; "
            f"without Manifest each run differs: {places}"
        )
    return Audit(
        outcome=outcome,
        run=first.id,
        sentence=sentence,
        verdict=verdict,
        doubts=tuple(found),
    )


def _of_input(first: Manifest) -> str:
    given = first.sections.get("environment", {}).get(STDIN)
    kind = given.get("kind") if isinstance(given, dict) else None
    if kind in ("pipe", "socket") and has_trained(first):
        return f". Only the first run had the {kind} on standard input: give a file, as `< input`"
    return ""
