"""What a run begins with: who made it, from which command and which entropy.

These entries come first. From then on, whatever happens to the program, the run can be listed and
replayed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from manifest.canonical import SCHEMA, Json
from manifest.environment import given
from manifest.environment.confidential import is_confidential
from manifest.environment.machine import identify_machine
from manifest.environment.redaction import redact_argv
from manifest.files import project_root
from manifest.journal import Journal
from manifest.liveness import identify_process
from manifest.rundir import RunDirectory

RUN, RECORD = "run", "record"
NOTEBOOK, INTERACTIVE = "notebook", "interactive"

_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Origin:
    """Everything that decides how a run begins."""

    mode: str
    """`RUN`: watched from the first instruction; `RECORD`: from a call in the code."""
    command: Sequence[str]
    executable: str
    folder: Path
    entropy: bytes
    hash_seed: str
    entropy_from: str | None = None
    replay_of: str | None = None
    is_pinning_os: bool = False
    project: str | None = None
    name: str | None = None
    ranks: int | None = None
    """How many ranks the command starts, where it was not the program that told it."""
    root: Path | None = None
    """The folder of the project, where it is not found from `folder`."""
    kind: str | None = None
    """`NOTEBOOK` or `INTERACTIVE`, where nothing can be started again."""
    given: Mapping[str, Json] = field(default_factory=dict)
    """What a replay gives the program otherwise than it has it itself."""


def write_origin(journal: Journal, run: RunDirectory, origin: Origin) -> None:
    """Write the first entries of a run."""
    root = origin.root or project_root(origin.folder)
    seeds = {
        "entropy": origin.entropy.hex(),
        "entropy_from": origin.entropy_from,
        "pinned_os_entropy": origin.is_pinning_os,
    }
    journal.append(
        "run",
        schema=SCHEMA,
        id=run.id,
        mode=origin.mode,
        project=origin.project or root.name,
        name=origin.name,
        replay_of=origin.replay_of,
        root=str(root),
        **seeds,
        **identify_process(),
        **identify_machine(),
    )
    command: dict[str, Json] = {
        "argv": redact_argv(list(origin.command), run.salt()),
        "executable": origin.executable,
        "cwd": os.path.relpath(origin.folder, root),
        "root": str(root),
        "kind": origin.kind or _kind(origin.command),
    }
    if origin.ranks is not None:
        command["ranks"] = origin.ranks
    journal.section("command", command)
    journal.section("seeds", {**seeds, "hash_seed": origin.hash_seed})
    journal.section("environment", {**_given(run), **origin.given})
    files = _files_of_command(origin, root, run)
    if files:
        journal.section("code", {"files": files})


def _given(run: RunDirectory) -> dict[str, Json]:
    try:
        return given.capture_given(run.put_blob)
    except Exception:  # a system without /proc
        return {}


def _files_of_command(origin: Origin, root: Path, run: RunDirectory) -> dict[str, Json]:
    # Scripts of any language and configuration files: a replay must see them as they were.
    files: dict[str, Json] = {}
    for argument in origin.command:
        path = Path(os.path.abspath(origin.folder / argument))
        try:
            if path.is_relative_to(root) and path.is_file() and path.stat().st_size <= _MOST_BYTES:
                content = path.read_bytes()
                if not is_confidential(str(path), content):
                    files[path.relative_to(root).as_posix()] = run.put_blob(content)
        except (OSError, ValueError):  # unreadable, or no path at all
            continue
    return files


def _kind(command: Sequence[str]) -> str:
    for argument in command[1:]:
        if argument == "-m":
            return "module"
        if argument in ("-c", "-"):
            return "code"
        if not argument.startswith("-"):
            break
    return "script" if any(argument.endswith(".py") for argument in command) else "other"
