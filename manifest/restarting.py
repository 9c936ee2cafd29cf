"""How a recorded program is started again: where, with which arguments, in which surroundings."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from manifest import entropy, launching, origin, rendezvous, workspace
from manifest.environment import asked, given, hardware, launcher, variables
from manifest.environment.source import SourceState
from manifest.errors import NotReplayable
from manifest.inheriting import as_user_made_it
from manifest.needs import files, machine, program
from manifest.needs.items import Original, Wish
from manifest.original import CHANGED, REPLAY, SET
from manifest.recorded import Recorded, is_below, moved
from manifest.rundir import RunDirectory

_HASH_SEED: Final = "PYTHONHASHSEED"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a replay takes place."""

    root: Path
    """The project: a workspace, or the user's own folder."""
    scratch: Path
    """A folder that goes when the replay is over."""
    interpreter: Path | None = None
    """Of an environment that was made for the replay."""


@dataclass(slots=True)
class Laid:
    """A workspace, and what is to be said of how it was made."""

    workspace: workspace.Workspace
    reasons: list[str] = field(default_factory=list)


def lay_out(recorded: Recorded, run: RunDirectory, folder: Path) -> Laid:
    """Lay out the project: from its commit where that can be had, else from the files that ran.

    Raises:
        NotReplayable: It cannot be laid out in either way.
    """
    reasons: list[str] = []
    project_folder = folder / (Path(recorded.root).name or "project")
    try:
        state = files.repository(recorded, Original(run, folder))
        if state is not None:
            made = workspace.build(project(recorded, state), run, project_folder)
            return Laid(made)
    except NotReplayable as error:
        reasons = [f"the source is that of the run directory alone: {'; '.join(error.reasons)}"]
        workspace.remove(project_folder)
    return Laid(workspace.build(project(recorded, None), run, project_folder), reasons)


def restart(
    recorded: Recorded,
    run: RunDirectory,
    wish: Wish,
    place: Place,
    *,
    until: int | None,
    dense: range | None = None,
) -> launching.Start:
    """Everything that decides how the recorded program starts again."""
    command, changes = recorded.command, wish.changes
    entropy_is_new = changes.is_entropy_fresh
    return launching.Start(
        command=[*command.arguments, *changes.arguments],
        arguments=_arguments(recorded, wish, place),
        folder=_folder(recorded, wish, place),
        environ={
            **_environ(recorded, run, wish, place),
            **launching.watched(until, dense),
        },
        entropy=entropy.new_master() if entropy_is_new else bytes.fromhex(recorded.seeds.entropy),
        entropy_from=None if entropy_is_new else recorded.id,
        replay_of=recorded.id,
        is_pinning_os=recorded.seeds.pinned_os_entropy,
        mode=recorded.mode,
        project=recorded.project,
        name=recorded.name,
        root=place.root,
        processors=given.fitting_processors(recorded.environment),
        umask=given.mask(recorded.environment),
        standard_input=_standard_input(recorded, run, place),
    )


def project(recorded: Recorded, state: SourceState | None) -> workspace.Project:
    """What a run recorded of its files, for a workspace."""
    root = recorded.root
    within = {
        os.path.relpath(path, root): facts
        for path, facts in recorded.inputs.items()
        if is_below(path, root) and not recorded.is_own(facts)
    }
    blobs = {name: facts.blob for name, facts in within.items() if facts.blob is not None}
    outputs = {os.path.relpath(path, root) for path in recorded.outputs if is_below(path, root)}
    return workspace.Project(
        root=recorded.home,
        sources={**blobs, **recorded.sources},
        inputs=frozenset(within),
        outputs=frozenset(outputs),
        started_at_ns=recorded.started_at_ns,
        state=state,
    )


def _arguments(recorded: Recorded, wish: Wish, place: Place) -> list[str]:
    argv = [moved(argument, recorded.root, place.root) for argument in recorded.command.arguments]
    executable = program.executable(recorded, wish)
    if executable is None:
        raise NotReplayable(["interpreter: there is no such program here any more"])
    if argv[0].endswith(".py") and not executable.endswith(".py"):
        argv = [argv[0], *argv]  # a script alone, which an interpreter ran
    argv[0] = _executable(executable, recorded, place)
    if starts_with_launcher(recorded):
        argv = rendezvous.with_free_ports(argv)
    return [*argv, *wish.changes.arguments]


def _executable(executable: str, recorded: Recorded, place: Place) -> str:
    if place.interpreter is not None:
        if program.is_python(recorded):
            return str(place.interpreter)
        script = place.interpreter.with_name(os.path.basename(executable))
        return str(script) if os.access(script, os.X_OK) else executable
    there = moved(executable, recorded.root, place.root)
    return there if os.access(there, os.X_OK) else executable


def _folder(recorded: Recorded, wish: Wish, place: Place) -> Path:
    folder = place.root / workspace.confined(recorded.command.cwd)
    try:
        is_inside = folder.resolve().is_relative_to(place.root.resolve())
        if is_inside and not wish.in_place:
            folder.mkdir(parents=True, exist_ok=True)  # git keeps no empty folders
    except (OSError, ValueError) as error:
        raise NotReplayable([f"the folder {recorded.command.cwd[:200]!r}: {error}"]) from None
    if not is_inside:
        raise NotReplayable([f"the folder {recorded.command.cwd[:200]!r} leaves the workspace"])
    return folder


def _environ(recorded: Recorded, run: RunDirectory, wish: Wish, place: Place) -> dict[str, str]:
    environment, changes = recorded.environment, wish.changes
    as_given = launcher.as_given(environment) if starts_with_launcher(recorded) else environment
    # Without what was said to another run: this process may be recorded itself, or is not to be.
    environ = variables.restore_variables(as_given, as_user_made_it(os.environ))
    environ = asked.restore_asked(environment, environ) | rendezvous.variables(environment)
    if machine.are_accelerators_hidden(recorded, hardware.capture_accelerators()):
        environ["CUDA_VISIBLE_DEVICES"] = ""
    path = [*_moved_path(recorded, place), environ.get("PYTHONPATH", "")]
    if any(path):
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    if place.interpreter is not None:
        folder = place.interpreter.parent
        environ["PATH"] = os.pathsep.join(filter(None, (str(folder), environ.get("PATH"))))
        environ["VIRTUAL_ENV"] = str(folder.parent)
    _set_hash_seed(environ, recorded, wish)
    environ |= changes.variables
    environ[REPLAY] = str(run.path.absolute())
    if changes:
        environ[CHANGED] = "1"
    if changes.settings:
        environ[SET] = json.dumps(changes.settings)
    return environ


def starts_with_launcher(recorded: Recorded) -> bool:
    """Whether the command is that of whoever started the ranks, if there are any."""
    # If there is one: what its ranks were told is for it to tell again.
    return recorded.mode == origin.RUN or recorded.command.ranks is not None


def _moved_path(recorded: Recorded, place: Place) -> list[str]:
    # An editable install points into the user's tree: the workspace must come before it.
    paths = recorded.environment.get("python.path")
    inside = [
        moved(path, recorded.root, place.root)
        for path in (paths if isinstance(paths, list) else [])
        if isinstance(path, str) and "\0" not in path and is_below(path, recorded.root)
    ]
    return [path for path in inside if os.path.isdir(path) and os.pathsep not in path]


def _set_hash_seed(environ: dict[str, str], recorded: Recorded, wish: Wish) -> None:
    own = str(entropy.hash_seed(bytes.fromhex(recorded.seeds.entropy)))
    if wish.changes.is_entropy_fresh and environ.get(_HASH_SEED) == own:
        del environ[_HASH_SEED]  # it was made from the recorded entropy
    if wish.changes.hash_seed is not None:
        environ[_HASH_SEED] = str(wish.changes.hash_seed)


def _standard_input(
    recorded: Recorded, run: RunDirectory, place: Place
) -> launching.StandardInput | None:
    kept = recorded.standard_input
    if kept is None or kept.kind == "terminal":
        return None
    facts = recorded.environment[given.STDIN]
    path = Path(recorded.here(kept.path))
    if kept.blob is not None:
        path = place.scratch / "standard input"
        path.write_bytes(run.get_blob(kept.blob))
    elif kept.kind != "file" or program.input_problem(kept, recorded) is not None:
        path = Path(os.devnull)
    return launching.StandardInput(path, offset=kept.offset, facts=facts)
