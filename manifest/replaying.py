"""Run a recorded program again and say whether it did the same."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from manifest import launching, origin, ranks, rendezvous, workspace
from manifest.canonical import checked_digest
from manifest.comparing import compare_trails, sentence
from manifest.dense import first_operation, operation_sentence
from manifest.diffing import diff
from manifest.environment import asked, launcher, variables
from manifest.errors import NotReplayable
from manifest.models import Difference, Manifest, TrailComparison, Verdict
from manifest.planning import Plan, make_plan, recorded_executable
from manifest.rundir import RunDirectory, find_blob, run_directories
from manifest.tolerance import compare_numbers, explanation
from manifest.trail import Trail

Progress = Callable[[str], None]

_OF_THE_REPLAY = frozenset({"env.PYTHONPATH"})
"""What differs because it is a replay: the workspace has a place of its own."""

_DENSE_STEPS = 3


def plan(original: RunDirectory, *, in_place: bool = False) -> Plan:
    """What a replay of this run needs, without running anything."""
    return make_plan(_read(original), in_place=in_place)


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
            replay ends with them unless told otherwise. If it diverges and nothing explains it,
            the program is run once more, to see whether it is deterministic.
        extra_args: Further arguments for the program.
        on_progress: Told what happens next, in a few words.

    Raises:
        NotReplayable: Something that is needed cannot be put back.
        KeyboardInterrupt: Someone stopped the program; there is no verdict then.
    """
    say = on_progress or (lambda what: None)
    manifest = _read(original)
    made = make_plan(manifest, in_place=in_place)
    if made.blocking and not best_effort:
        raise NotReplayable([f"{item.what}: {item.why}" for item in made.blocking])
    if dense is not None:
        until = until if until is not None else dense.stop
    until = until if until is not None else _steps_of_a_crashed(manifest)

    def again() -> tuple[RunDirectory, Verdict]:
        folder = Path(tempfile.mkdtemp(prefix="manifest-replay-"))
        try:
            say("laying out the workspace")
            root = Path(manifest.sections["command"]["root"])
            if not in_place:
                root = workspace.build(_project(manifest), original, folder / root.name)
            say("running the program again")
            how = _start(original, manifest, root, extra_args=extra_args, until=until, dense=dense)
            launched = launching.start(how, base=base)
            if launched.was_interrupted:
                raise KeyboardInterrupt
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        say("comparing")
        verdict = judge(original, launched.run, until=until, tolerance=tolerance)
        launched.run.put_verdict(verdict.model_dump(mode="json"))
        return launched.run, verdict

    run, verdict = again()
    if dense is not None and verdict.outcome == "diverged" and not verdict.explanations:
        say("nothing explains it: once more, to see whether the program is deterministic")
        other, _ = again()
        verdict = _with_determinism(verdict, run, other)
        run.put_verdict(verdict.model_dump(mode="json"))
    return verdict


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
    before, after = _read(original), _read(again)
    trails = ranks.trails(original, before), ranks.trails(again, after)
    comparison = compare_trails(*trails)
    explanations = _explanations(original, before, again, after)

    operation = first_operation(*trails)
    numbers = None
    if tolerance is not None and comparison.divergence is not None:
        numbers = compare_numbers(*trails, rtol=tolerance[0], atol=tolerance[1])

    def verdict(outcome: Any, said: str, reasons: tuple[str, ...] = ()) -> Verdict:
        return Verdict(
            outcome=outcome,
            original=original.id,
            replay=again.id,
            sentence=said,
            comparison=comparison,
            explanations=explanations if outcome == "diverged" else (),
            reasons=reasons or (_unrepeated(before) if outcome == "diverged" else ()),
            tolerance=numbers,
            operation=operation,
        )

    problem = _unequal_ends(before, after, comparison, until) or _unequal_ranks(*trails, until)
    if comparison.divergence is not None:
        said = sentence(comparison)
        if operation is not None:
            said = f"{said}; {operation_sentence(operation)}"
        if numbers is None:
            return verdict("diverged", said)
        outcome = "within tolerance" if numbers.is_within and problem is None else "diverged"
        ended = f"; {problem}" if problem is not None else ""
        return verdict(outcome, f"{explanation(numbers)}; bits: {said}{ended}")
    if problem is not None and comparison.steps == 0 and after.status != "finished":
        return verdict("not replayable", problem, (problem,))
    if problem is not None:
        return verdict("diverged", f"{sentence(comparison)}; {problem}")
    if not comparison.streams:
        nothing = "neither run drew a random number or made a training step: nothing to compare"
        return verdict("not replayable", nothing, (nothing,))
    return verdict("identical", sentence(comparison))


def _unequal_ends(
    before: Manifest, after: Manifest, comparison: TrailComparison, until: int | None
) -> str | None:
    was_cut = until is not None or before.status == "crashed"
    steps_before, steps_after = comparison.steps_before, comparison.steps_after
    if steps_after < (min(steps_before, until) if until is not None else steps_before):
        reason = after.error or f"exit code {after.exit_code}"
        return f"the replay ended after {steps_after} of {steps_before} steps: {reason}"
    if was_cut:
        return None
    if steps_after > steps_before:
        return f"the replay went on to step {steps_after}, the recorded run ended at {steps_before}"
    if before.exit_code is not None and before.exit_code != after.exit_code:
        reason = f" ({after.error})" if after.error else ""
        return (
            f"the recorded run ended with exit code {before.exit_code}, "
            f"the replay with {after.exit_code}{reason}"
        )
    return None


def _unequal_ranks(
    before: Mapping[str, Trail], after: Mapping[str, Trail], until: int | None
) -> str | None:
    for process, trail in before.items():
        steps = trail.steps if until is None else min(trail.steps, until)
        found = after[process].steps if process in after else 0
        if found < steps:
            return f"in the replay {process} ended after {found} of {steps} steps"
    return None


def _unrepeated(before: Manifest) -> tuple[str, ...]:
    seeds = before.sections.get("seeds", {})
    places = seeds.get("os_entropy_uses") or {}
    if not places or seeds.get("pinned_os_entropy"):
        return ()
    shown = ", ".join(sorted(places)[:3])
    reason = (
        f"the program drew entropy from the operating system at {shown}, which is not repeated "
        "unless it is recorded with --pin-entropy"
    )
    return (reason,)


def _read(run: RunDirectory) -> Manifest:
    return Manifest.model_validate(run.document())


def _steps_of_a_crashed(manifest: Manifest) -> int | None:
    # The program was killed: what it would have done next was never recorded.
    if manifest.status != "crashed":
        return None
    steps = [p.trail.steps for p in manifest.processes.values() if p.trail is not None]
    return max(steps, default=0) or None


def _project(manifest: Manifest) -> workspace.Project:
    root = Path(manifest.sections["command"]["root"])
    code, inputs = manifest.sections.get("code", {}), manifest.sections.get("inputs", {})
    sources = {name: checked_digest(text) for name, text in (code.get("files") or {}).items()}
    within = {
        os.path.relpath(path, root): facts
        for path, facts in inputs.items()
        if Path(path).is_relative_to(root)
    }
    for name, facts in within.items():
        if "blob" in facts:
            sources.setdefault(name, checked_digest(facts["blob"]))
    outputs = {os.path.relpath(path, root) for path in manifest.sections.get("outputs", {})}
    return workspace.Project(
        root=root,
        sources=sources,
        inputs=frozenset(within),
        outputs=frozenset(outputs),
        started_at_ns=int(datetime.fromisoformat(manifest.started_at).timestamp() * 1e9),
    )


def _start(
    original: RunDirectory,
    manifest: Manifest,
    root: Path,
    *,
    extra_args: Sequence[str],
    until: int | None,
    dense: range | None = None,
) -> launching.Start:
    command = manifest.sections["command"]
    seeds = manifest.sections["seeds"]
    recorded_root = command["root"]
    argv = [_moved(argument, recorded_root, root) for argument in command["argv"]]
    executable = recorded_executable(manifest) or argv[0]
    moved = _moved(executable, recorded_root, root)
    if argv[0].endswith(".py") and not executable.endswith(".py"):
        argv = [argv[0], *argv]  # a script alone, which an interpreter ran
    argv[0] = moved if os.access(moved, os.X_OK) else executable
    environ = _environ(manifest, recorded_root, root)
    if manifest.mode == origin.RUN:
        argv = rendezvous.with_free_ports(argv)
    if until is not None:
        environ["MANIFEST_UNTIL"] = str(until)
    if dense is not None:
        environ["MANIFEST_DENSE"] = f"{dense.start}:{dense.stop}"
    if manifest.mode == origin.RECORD:
        environ["MANIFEST_REPLAY"] = str(original.path)
    return launching.Start(
        command=[*command["argv"], *extra_args],
        arguments=[*argv, *extra_args],
        folder=root / workspace.confined(command.get("cwd", ".")),
        environ=environ,
        entropy=bytes.fromhex(seeds["entropy"]),
        entropy_from=original.id,
        replay_of=original.id,
        is_pinning_os=bool(seeds.get("pinned_os_entropy")),
        mode=manifest.mode,
        project=manifest.project,
        name=manifest.name,
    )


def _environ(manifest: Manifest, recorded_root: str, root: Path) -> dict[str, str]:
    environment = manifest.sections.get("environment", {})
    given = launcher.as_given(environment) if manifest.mode == origin.RUN else environment
    environ = variables.restore_variables(given, dict(os.environ))
    environ = asked.restore_asked(environment, environ) | rendezvous.variables(environment)
    # An editable install points into the user's tree: the workspace must come before it.
    moved = [
        _moved(path, recorded_root, root)
        for path in environment.get("python.path", [])
        if isinstance(path, str) and _is_below(path, recorded_root)
    ]
    inherited = environ.get("PYTHONPATH")
    path = [item for item in moved if os.path.isdir(item)] + ([inherited] if inherited else [])
    if path:
        environ["PYTHONPATH"] = os.pathsep.join(path)
    return environ


def _moved(argument: str, recorded_root: str, root: Path) -> str:
    if not _is_below(argument, recorded_root):
        return argument
    return str(root / os.path.relpath(argument, recorded_root))


def _is_below(path: str, folder: str) -> bool:
    return os.path.isabs(path) and Path(path).is_relative_to(folder)


def _explanations(
    original: RunDirectory, before: Manifest, again: RunDirectory, after: Manifest
) -> tuple[Difference, ...]:
    found = diff(before, after, blobs=lambda digest: find_blob((original, again), digest))
    return tuple(
        item
        for item in found.differences
        if item.impact in ("certain", "possible") and item.key not in _OF_THE_REPLAY
    )
