"""A throw-away copy of a project, as it was when a run began.

Recorded source is written from the run directory; every other file of the project is a link to
the user's own. What the recorded run wrote is left out, so that a script that resumes from its last
checkpoint trains again. Nothing in the user's tree can be overwritten through a recorded path.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from manifest.canonical import Digest
from manifest.errors import NotReplayable
from manifest.rundir import RunDirectory

_LEFT_OUT = frozenset({".git", ".hg", ".manifest", "__pycache__", ".pytest_cache", "node_modules"})
_MOST_LINKS = 50_000


@dataclass(frozen=True, slots=True)
class Project:
    """What a run recorded of its files."""

    root: Path
    sources: Mapping[str, Digest]
    """Blobs of source and small inputs, by path relative to the root."""
    inputs: frozenset[str]
    outputs: frozenset[str]
    started_at_ns: int


def build(project: Project, run: RunDirectory, workspace: Path) -> Path:
    """Lay out `project` in the empty folder `workspace`.

    Raises:
        NotReplayable: A recorded path would leave the workspace, or a blob is missing.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    # Source first, while the folder holds no link that a recorded path could lead through.
    for name, digest in project.sources.items():
        _write(workspace / confined(name), name, digest, run)
    for relative in _linked(project):
        link = workspace / relative
        if not os.path.lexists(link):
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(project.root / relative)
    return workspace


def confined(name: str) -> PurePosixPath:
    """Accept a recorded path only if it stays inside the workspace and out of repositories.

    Raises:
        NotReplayable: It does not; manifests are untrusted.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or ".git" in path.parts or "\0" in name:
        raise NotReplayable([f"the recorded path {name!r} leaves the workspace"])
    return path


def _write(path: Path, name: str, digest: Digest, run: RunDirectory) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        data = run.get_blob(digest)
    except KeyError:
        raise NotReplayable([f"the run does not hold the recorded {name}"]) from None
    path.write_bytes(data)
    if data.startswith(b"#!"):
        path.chmod(0o755)


def _linked(project: Project) -> Iterator[Path]:
    count = 0
    for relative in _walk(project.root, Path()):
        if count >= _MOST_LINKS:
            raise NotReplayable(
                [f"{project.root} holds more than {_MOST_LINKS} files; use --in-place"]
            )
        if _was_there(project, relative):
            count += 1
            yield relative


def _walk(root: Path, relative: Path) -> Iterator[Path]:
    try:
        found = sorted(os.scandir(root / relative), key=lambda entry: entry.name)
    except OSError:
        return
    if any(entry.name == "pyvenv.cfg" for entry in found):
        return
    for entry in found:
        if entry.name in _LEFT_OUT:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, relative / entry.name)
        else:
            yield relative / entry.name


def _was_there(project: Project, relative: Path) -> bool:
    name = relative.as_posix()
    if name in project.sources or name in project.outputs:
        return False
    if name in project.inputs:
        return True
    # C++ writes (torch.save) pass the audit hook: a file newer than the start of the run is either
    # its output or younger than the run.
    try:
        return (project.root / relative).lstat().st_mtime_ns < project.started_at_ns
    except OSError:
        return False
