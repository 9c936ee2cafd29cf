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
from manifest.diffing import diff
from manifest.environment import asked, launcher, variables
from manifest.errors import NotReplayable
from manifest.filefacts import is_of_run
from manifest.inheriting import as_user_made_it
from manifest.models import Difference, Manifest, TrailComparison, Verdict
from manifest.original import CHANGED, REPLAY
from manifest.planning import Plan, make_plan, recorded_executable
from manifest.rundir import RunDirectory, find_blob
from manifest.trail import Trail
from manifest.unrepeated import unrepeated
from manifest.witnesses import uncompared, unfit

Progress = Callable[[str], None]

_OF_THE_REPLAY = frozenset({"env.PYTHONPATH"})
"""What differs because it is a replay: the workspace has a place of its own."""


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
    until = until if until is not None else _steps_of_a_stopped(manifest)
    folder = Path(tempfile.mkdtemp(prefix="manifest-replay-"))
    try:
        say("laying out the workspace")
        root = Path(manifest.sections["command"]["root"])
        if not in_place:
            root = workspace.build(_project(manifest), original, folder / root.name)
        say("running the program again")
        how = _start(original, manifest, root, extra_args=extra_args, until=until)
        launched = launching.start(how, base=base)
        if launched.was_interrupted:
            raise KeyboardInterrupt
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    say("comparing")
    verdict = judge(original, launched.run, until=until)
    launched.run.put_verdict(verdict.model_dump(mode="json"))
    return verdict


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


def _project(manifest: Manifest) -> workspace.Project:
    root = Path(manifest.sections["command"]["root"])
    code, inputs = manifest.sections.get("code", {}), manifest.sections.get("inputs", {})
    sources = {name: checked_digest(text) for name, text in (code.get("files") or {}).items()}
    started_at = datetime.fromisoformat(manifest.started_at)
    within = {
        os.path.relpath(path, root): facts
        for path, facts in inputs.items()
        if Path(path).is_relative_to(root) and not is_of_run(facts, _microseconds(started_at))
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
        started_at_ns=_microseconds(started_at) * 1000,
    )


def _microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)


def _start(
    original: RunDirectory,
    manifest: Manifest,
    root: Path,
    *,
    extra_args: Sequence[str],
    until: int | None,
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
    if _starts_with_launcher(manifest):
        argv = rendezvous.with_free_ports(argv)
    if until is not None:
        environ["MANIFEST_UNTIL"] = str(until)
    environ[REPLAY] = str(original.path.absolute())
    if extra_args:
        environ[CHANGED] = "1"
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


def _starts_with_launcher(manifest: Manifest) -> bool:
    # If there is one: what its ranks were told is for it to tell again.
    return manifest.mode == origin.RUN or "ranks" in manifest.sections["command"]


def _environ(manifest: Manifest, recorded_root: str, root: Path) -> dict[str, str]:
    environment = manifest.sections.get("environment", {})
    given = launcher.as_given(environment) if _starts_with_launcher(manifest) else environment
    # Without what was said to another run: this process may be recorded itself, or is not to be.
    environ = variables.restore_variables(given, as_user_made_it(os.environ))
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
