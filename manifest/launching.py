"""Start a program that is recorded from its first instruction.

The launcher is a process of its own, so what takes long (git, the drivers) is captured here, beside
the program and not in it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from manifest import entropy
from manifest.canonical import Json
from manifest.environment import given, launcher
from manifest.errors import ManifestError, NotRecordable
from manifest.identity import new_run_id
from manifest.inheriting import RUN_DIR, variables_for
from manifest.lineage import names_kept
from manifest.origin import RECORD, RUN, Origin, write_origin
from manifest.recorder import complain
from manifest.rundir import RunDirectory
from manifest.signals import ENDING, handled
from manifest.surveying import survey

STOPPED = "stopped"
"""Where a note of a run says that it did not end by itself."""

_STOPPING = frozenset({signal.SIGINT, *ENDING})
_FORWARDED = (*ENDING, signal.SIGUSR1, signal.SIGUSR2)
_SURVEY_TIMEOUT_SECONDS = 30
_NOBODY_RECORDED = (
    "no Python process recorded itself: the program is not Python, or was started with -I, -E or "
    "-S, which keep Manifest out"
)


@dataclass(frozen=True, slots=True)
class Launched:
    """A program that was started and has ended."""

    run: RunDirectory
    exit_code: int
    """As a shell gives it: 128 + n when signal n ended the program."""
    signal: str | None
    was_interrupted: bool
    """Whether someone pressed Ctrl-C, whatever the program made of it."""
    told_to_stop: int | None = None
    """The signal, if the launcher got one that asks it to end and passed it on."""

    def obey(self) -> None:
        """End as the program was told to, before anything is done with what it left.

        Raises:
            KeyboardInterrupt: Someone pressed Ctrl-C.
            SystemExit: Someone asked the launcher to end.
        """
        if self.was_interrupted:
            raise KeyboardInterrupt
        if self.told_to_stop is not None:
            raise SystemExit(128 + self.told_to_stop)


@dataclass(frozen=True, slots=True)
class StandardInput:
    """A file for the program to read from."""

    path: Path
    offset: int
    facts: Json
    """What is recorded of it: what was recorded when the program first read it."""


@dataclass(frozen=True, slots=True)
class Start:
    """Everything that decides how a program starts."""

    command: Sequence[str]
    """As it is recorded."""
    folder: Path
    environ: Mapping[str, str]
    entropy: bytes
    entropy_from: str | None = None
    replay_of: str | None = None
    is_pinning_os: bool = False
    mode: str = RUN
    project: str | None = None
    name: str | None = None
    arguments: Sequence[str] | None = None
    """What is executed, where that differs: a replay moves paths into its workspace."""
    root: Path | None = None
    """The folder of the project, where it is not found from `folder`."""
    processors: frozenset[int] = frozenset()
    """Those that the program may use; those of this process, if none are given."""
    umask: int | None = None
    standard_input: StandardInput | None = None
    """What the program reads; that of this process, if none is given."""


def launch(
    command: Sequence[str],
    *,
    base: Path,
    project: str | None = None,
    name: str | None = None,
    like: RunDirectory | None = None,
    pin_entropy: bool = False,
    until: int | None = None,
    dense: range | None = None,
) -> Launched:
    """Run a program and record it.

    Args:
        command: The program and its arguments; a ``.py`` file is run by this interpreter.
        base: The folder that keeps runs.
        project: What the run belongs to; by default the name of the folder.
        name: A name for people.
        like: A run whose entropy to take over, so that unseeded randomness repeats and only what
            was changed since differs.
        pin_entropy: Let `os.urandom` and everything built on it repeat too.
        until: Stop the program after so many steps.
        dense: Steps in which to keep the fingerprint of every tensor and of every operation.

    Raises:
        NotRecordable: There is no such program, or the run cannot be kept.
    """
    origin = like.origin() if like is not None else None
    return start(
        Start(
            command=command,
            folder=Path.cwd(),
            environ={**os.environ, **watched(until, dense)},
            entropy=bytes.fromhex(origin["entropy"]) if origin else entropy.new_master(),
            entropy_from=origin["id"] if origin else None,
            is_pinning_os=pin_entropy or bool(origin and origin["pinned_os_entropy"]),
            project=project or os.environ.get("MANIFEST_PROJECT"),
            name=name,
        ),
        base=base,
    )


def watched(until: int | None, dense: range | None) -> dict[str, str]:
    """The variables that say how far a program is watched, and in which steps densely."""
    return {
        **({"MANIFEST_UNTIL": str(until)} if until is not None else {}),
        **({"MANIFEST_DENSE": f"{dense.start}:{dense.stop}"} if dense is not None else {}),
    }


def start(how: Start, *, base: Path) -> Launched:
    """Run a program as `how` says and record it.

    Raises:
        NotRecordable: There is no such program, or the run cannot be kept.
    """
    executable, command = _resolve(how.arguments or how.command, how.environ)
    run = RunDirectory.create(base.absolute(), new_run_id())
    _, journal = run.claim("run")
    origin = _origin(how, executable)
    write_origin(journal, run, origin)
    environ = {**how.environ, "PYTHONHASHSEED": origin.hash_seed, RUN_DIR: str(run.path)}
    if how.mode == RUN:
        environ |= variables_for(run, "main", environ)
    if place := launcher.capture_given(how.environ):
        journal.section("environment", place)
    surveyor = threading.Thread(target=survey, args=(journal, run, how.folder), daemon=True)
    surveyor.start()
    try:
        code, signals = _run(how, command, executable, environ)
    except NotRecordable:
        shutil.rmtree(run.path, ignore_errors=True)  # nothing ran: there is no run
        raise
    surveyor.join(timeout=_SURVEY_TIMEOUT_SECONDS)
    ended_by = _signal_name(-code) if code < 0 else None
    exit_code = code if code >= 0 else 128 - code
    if how.mode == RUN and not run.has_process():
        journal.note("recording", _NOBODY_RECORDED)
    if _STOPPING.intersection(signals):
        journal.note(STOPPED, "someone told the program to stop, whatever it made of it")
    journal.append("exit", code=exit_code, signal=ended_by)
    journal.close()
    _seal(run)
    return Launched(
        run,
        exit_code=exit_code,
        signal=ended_by,
        was_interrupted=signal.SIGINT in signals,
        told_to_stop=next((number for number in signals if number in ENDING), None),
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal between the first and the last
        return f"SIG{number}"


def _seal(run: RunDirectory) -> None:
    # The program has ended as it has: a full disk must not hide how.
    try:
        run.write_manifest()
    except (ManifestError, OSError) as error:
        complain(f"the program ended, but its manifest cannot be written yet: {error}")


def _origin(how: Start, executable: str) -> Origin:
    return Origin(
        mode=how.mode,
        command=how.command,
        executable=executable,
        folder=how.folder,
        entropy=how.entropy,
        hash_seed=_hash_seed(how),
        entropy_from=how.entropy_from,
        replay_of=how.replay_of,
        is_pinning_os=how.is_pinning_os,
        project=how.project,
        name=how.name,
        root=how.root,
        given=_given(how),
    )


def _given(how: Start) -> dict[str, Json]:
    found: dict[str, Json] = {}
    if how.standard_input is not None:
        found[given.STDIN] = how.standard_input.facts
    if how.processors:
        found[given.AFFINITY] = given.ranges(how.processors)
    if how.umask is not None:
        found[given.UMASK] = f"{how.umask:04o}"
    return found


def _hash_seed(how: Start) -> str:
    seed = how.environ.get("PYTHONHASHSEED", "")
    if how.mode == RECORD:
        return seed or "random"
    return seed if seed.isdigit() else str(entropy.hash_seed(how.entropy))


def _resolve(command: Sequence[str], environ: Mapping[str, str]) -> tuple[str, list[str]]:
    if not command:
        raise NotRecordable("no program given. Write `manifest run -- python train.py`.")
    if command[0].endswith(".py") and os.path.isfile(command[0]):
        return sys.executable, [sys.executable, *command]
    found = shutil.which(command[0], path=environ.get("PATH"))
    if found is None:
        raise NotRecordable(
            f"there is no program '{command[0]}' on PATH or at that place. "
            "Write the command as you would without Manifest: `manifest run -- python train.py`."
        )
    # Not resolved further: an environment's interpreter is a link, and its place is what matters.
    return os.path.abspath(found), list(command)


def _run(
    how: Start, command: Sequence[str], executable: str, environ: Mapping[str, str]
) -> tuple[int, list[int]]:
    try:
        with _opened(how.standard_input) as stdin, _bound_to(how.processors), names_kept():
            process = subprocess.Popen(
                command,
                executable=executable,
                cwd=how.folder,
                env=environ,
                stdin=stdin,
                umask=-1 if how.umask is None else how.umask,
            )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NotRecordable(f"'{command[0]}' cannot be started: {reason}") from error
    with _signals_passed_on(process) as signals:
        code = process.wait()
    return code, signals


@contextmanager
def _opened(standard_input: StandardInput | None) -> Iterator[int | None]:
    if standard_input is None:
        yield None
        return
    file = os.open(standard_input.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.lseek(file, standard_input.offset, os.SEEK_SET)
        yield file
    finally:
        os.close(file)


@contextmanager
def _bound_to(processors: frozenset[int]) -> Iterator[None]:
    # A program inherits the processors of the thread that starts it.
    mine = os.sched_getaffinity(0)
    if not processors or processors == mine:
        yield
        return
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


@contextmanager
def _signals_passed_on(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Give the program the signals that the launcher gets; yields them."""
    signals: list[int] = []

    def note(number: int, _: object) -> None:
        signals.append(number)

    def pass_on(number: int, _: object) -> None:
        signals.append(number)
        process.send_signal(number)

    # The terminal sends Ctrl-C to the program as well, which decides what that means.
    with handled({signal.SIGINT: note, **dict.fromkeys(_FORWARDED, pass_on)}):
        yield signals
