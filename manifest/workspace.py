"""A throw-away copy of a project, as it was when a run began.

The commit with its uncommitted changes is laid out where the repository has it; source that ran is
written over it from the run directory. Of the user's other files the small ones are copied, the
large ones are links. What the recorded run wrote is left out, so that a script that resumes from
its last checkpoint trains again. Nothing in the user's tree can be overwritten through a recorded
path, and what the program changed behind a link is noticed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from manifest.canonical import Digest
from manifest.environment.checkout import MOST_FOLDERS, filtered_paths, restore_source
from manifest.environment.git import TIMEOUT_SECONDS, Git, GitFailed, entries
from manifest.environment.source import SourceState
from manifest.errors import DigestMismatch, NotReplayable
from manifest.rundir import RunDirectory

_LEFT_OUT: Final = frozenset(
    {".git", ".hg", ".manifest", "__pycache__", ".pytest_cache", "node_modules"}
)
_MOST_LINKS: Final = 200_000
_MOST_SOURCE_BYTES: Final = 1 << 30
_MOST_COPIED_BYTES: Final = 1 << 20
"""Of one file; a larger one is a link."""
_MOST_COPIED_FILES: Final = 5_000
_MOST_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class Project:
    """What a run recorded of its files."""

    root: Path
    """Where the project lies here."""
    sources: Mapping[str, Digest]
    """Blobs of source and small inputs, by path relative to the root."""
    inputs: frozenset[str]
    outputs: frozenset[str]
    started_at_ns: int
    state: SourceState | None = None
    """The repository at that moment, where it can be laid out from the one in `root`."""


@dataclass(slots=True)
class Workspace:
    """A project that was laid out, and the user's files that it leads to."""

    root: Path
    _links: dict[Path, tuple[int, int] | None] = field(default_factory=dict)

    def link(self, path: Path, target: Path) -> None:
        """Let `path` lead to a file of the user's, which is to stay as it is."""
        path.symlink_to(target)
        self._links[target] = _size_and_time(target)

    def changed(self) -> list[Path]:
        """The user's files behind links that are not as they were."""
        return [path for path, before in self._links.items() if _size_and_time(path) != before]

    def complaint(self) -> str | None:
        """What to say of those, if there are any."""
        changed = self.changed()
        if not changed:
            return None
        more = f" and {len(changed) - _MOST_NAMED} more" if len(changed) > _MOST_NAMED else ""
        named = ", ".join(str(path) for path in changed[:_MOST_NAMED])
        return f"while the replay ran, {named}{more} changed: files of yours that it was linked to"


def build(project: Project, run: RunDirectory, folder: Path) -> Workspace:
    """Lay out `project` in `folder`, which is empty or not there yet.

    Raises:
        NotReplayable: A recorded path would leave the workspace, or a blob is missing.
    """
    try:
        return _build(project, run, folder)
    except (OSError, ValueError, GitFailed) as error:
        raise NotReplayable([f"the workspace cannot be laid out: {str(error)[:500]}"]) from error


def remove(folder: Path) -> None:
    """Remove a workspace, also what the program has made unwritable in it."""
    try:
        shutil.rmtree(folder)
    except (OSError, RecursionError):
        for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):  # neither goes through a link
            subprocess.run([*command, "--", str(folder)], capture_output=True, check=False)


def confined(name: str) -> PurePosixPath:
    """Accept a recorded path only if it stays inside the workspace and out of repositories.

    Raises:
        NotReplayable: It does not; manifests are untrusted.
    """
    path = PurePosixPath(name)
    # Some file systems take ".GIT" and ".git." for the same.
    reserved = any(part.lower().rstrip(". ") == ".git" or part == ".." for part in path.parts)
    if path.is_absolute() or reserved or "\0" in name or len(path.parts) > MOST_FOLDERS:
        raise NotReplayable([f"the recorded path {name[:200]!r} leaves the workspace"])
    return path


def _build(project: Project, run: RunDirectory, folder: Path) -> Workspace:
    made = Workspace(folder)
    folder.mkdir(parents=True, exist_ok=True)
    is_checked_out = project.state is not None
    if project.state is not None:
        restore_source(project.state, folder, project.root)
        _take_out(project, project.state, folder)
    # Source first, while the folder holds no link of ours that a path could lead through.
    bytes_left = _MOST_SOURCE_BYTES
    for name, digest in project.sources.items():
        content = _blob(run, name, digest)
        bytes_left -= len(content)
        if bytes_left < 0:
            raise NotReplayable(["the recorded source is far too large"])
        _write(folder, confined(name), content)
    if is_checked_out:
        _mend_links(project, made)
        _replace_filtered(project, made)
    _take_over(project, made, is_checked_out=is_checked_out)
    return made


def _take_out(project: Project, state: SourceState, folder: Path) -> None:
    """Remove what git has otherwise than the program found it: the user's file is nearer."""
    # A file that nobody tracks may have been written while the state was read.
    written = [os.fsdecode(file.path) for file in state.untracked]
    names = [name for name in written if name in project.outputs]
    names += [os.fsdecode(item.path) for item in state.left_out]
    for name in names:
        relative = confined(name)
        path = _real_folder(folder, relative.parent.parts) / relative.name
        if path.is_symlink() or path.is_file():
            path.unlink()


def _write(folder: Path, name: PurePosixPath, content: bytes) -> None:
    path = _real_folder(folder, name.parent.parts) / name.name
    if path == folder:
        raise NotReplayable(["a recorded path is empty"])
    mode = None
    if os.path.lexists(path):
        if not path.is_symlink() and path.read_bytes() == content:
            return
        mode = None if path.is_symlink() else path.stat().st_mode & 0o777
        path.unlink()
    with open(path, "xb") as file:
        file.write(content)
    if mode is not None or content.startswith(b"#!"):
        path.chmod(mode if mode is not None else 0o755)


def _real_folder(folder: Path, parts: tuple[str, ...]) -> Path:
    """Make folders, none of which is a link: what a commit has as one is unfolded."""
    for part in parts:
        folder /= part
        if folder.is_symlink():
            _unfold(folder)
        folder.mkdir(exist_ok=True)
    return folder


def _unfold(link: Path) -> None:
    target = link.resolve()
    link.unlink()
    link.mkdir()
    if target.is_dir():
        for entry in os.scandir(target):
            (link / entry.name).symlink_to(entry.path)


def _blob(run: RunDirectory, name: str, digest: Digest) -> bytes:
    try:
        return run.get_blob(digest)
    except KeyError:
        raise NotReplayable([f"the run does not hold the recorded {name[:200]}"]) from None
    except DigestMismatch as error:
        raise NotReplayable([str(error)]) from None


def _mend_links(project: Project, made: Workspace) -> None:
    # A link to a neighbour of the project, such as ../data, leads nowhere from another folder.
    git = Git(made.root, TIMEOUT_SECONDS)
    staged = (told.partition(b"\t") for told in entries(git("ls-files", "--stage", "-z")))
    tracked = [os.fsdecode(path) for told, _, path in staged if told.startswith(b"120000")]
    untracked = [os.fsdecode(file.path) for file in (project.state or SourceState()).untracked]
    for name in [*tracked, *untracked]:
        link, original = made.root / name, project.root / name
        if link.is_symlink() and not link.exists() and original.exists():
            link.unlink()
            made.link(link, original)


def _replace_filtered(project: Project, made: Workspace) -> None:
    # What a filter makes of a pointer, such as a file of LFS, is data: the user's file has it.
    for name in filtered_paths(made.root) - project.sources.keys():
        path, original = made.root / name, project.root / name
        if original.is_file() and path.is_file() and not path.is_symlink():
            path.unlink()
            _copy_or_link(made, path, original, may_copy=False)


def _take_over(project: Project, made: Workspace, *, is_checked_out: bool) -> None:
    known_to_git = _known_to_git(project) if is_checked_out else frozenset()
    copied = 0
    for count, relative in enumerate(_walk(project.root, Path())):
        if count >= _MOST_LINKS:
            raise NotReplayable(
                [f"{project.root} holds more than {_MOST_LINKS} files; use --in-place"]
            )
        path, name = made.root / relative, relative.as_posix()
        if os.path.lexists(path) or name in known_to_git or not _was_there(project, relative):
            continue
        _real_folder(made.root, relative.parent.parts)
        original = project.root / relative
        copied += _copy_or_link(made, path, original, may_copy=copied < _MOST_COPIED_FILES)


def _copy_or_link(made: Workspace, path: Path, original: Path, *, may_copy: bool) -> bool:
    status = original.lstat()
    if may_copy and _is_regular(status) and status.st_size <= _MOST_COPIED_BYTES:
        try:
            shutil.copy2(original, path)
            return True
        except OSError:  # may be read by the program only, or not at all
            path.unlink(missing_ok=True)
    made.link(path, original)
    return False


def _known_to_git(project: Project) -> frozenset[str]:
    """What the user's repository has or could have now: of all that, the commit alone was there."""
    git = Git(project.root, TIMEOUT_SECONDS)
    told = git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    left_out = {item.path for item in (project.state or SourceState()).left_out}
    names = frozenset(os.fsdecode(path) for path in entries(told) if path not in left_out)
    return names - project.inputs


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


def _is_regular(status: os.stat_result) -> bool:
    return (status.st_mode & 0o170000) == 0o100000


def _size_and_time(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
