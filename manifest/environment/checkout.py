"""Captured source, laid out again: the commit, and every byte that differs from it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from manifest.environment.git import TIMEOUT_SECONDS, Git, GitFailed, is_object_name
from manifest.environment.source import (
    LINK,
    SourceState,
    Submodule,
    UntrackedFile,
    add_untracked,
    read_file,
)
from manifest.errors import NotReplayable


def restore_source(state: SourceState, destination: Path, repository: Path) -> str:
    """Lay out captured source in an empty folder, as a repository of its own.

    The new repository borrows the objects of `repository`, which is only read. Nothing is written
    through a link or outside `destination`, whatever the state says.

    Args:
        state: What `capture_source` gave, or a copy that was kept since; not trusted.
        destination: An empty folder, or none yet.
        repository: A clone that has the commit.

    Returns:
        The tree that is there now, equal to ``state.tree``.

    Raises:
        NotReplayable: A part is missing, or what came out is not what was captured.
    """
    try:
        return _restore(state, destination, repository)
    except (GitFailed, OSError) as error:
        raise NotReplayable([f"the source of {(state.commit or '?')[:12]}: {error}"]) from error


def _restore(state: SourceState, destination: Path, repository: Path) -> str:
    if state.problem or not state.commit:
        raise GitFailed(state.problem or "the run recorded no commit")
    if not is_object_name(state.commit):
        raise GitFailed(f"{state.commit[:80]!r} is not the name of a commit")
    destination.mkdir(parents=True, exist_ok=True)
    if any(destination.iterdir()):
        raise GitFailed(f"{destination} is not empty")
    git = _check_out(state.commit, destination, repository)
    if state.patch:
        git("apply", "--index", "--whitespace=nowarn", "-", stdin=state.patch)
    for file in state.untracked:
        _write(destination, file)
    root = os.fsencode(destination)
    written = (read_file(os.path.join(root, file.path), file.path) for file in state.untracked)
    index = destination / ".git" / "index.manifest"
    shutil.copy2(destination / ".git" / "index", index)
    try:
        copied = git.with_variables(GIT_INDEX_FILE=str(index))
        tree = add_untracked(copied, (file for file in written if file is not None))
    finally:
        index.unlink()
    if tree != state.tree:
        raise GitFailed(f"expected the tree {state.tree}, found {tree}")
    for submodule in state.submodules:
        _restore_submodule(submodule, destination, repository)
    return tree


def _check_out(commit: str, destination: Path, repository: Path) -> Git:
    lender = Git(repository, TIMEOUT_SECONDS)
    objects = (repository / lender.line("rev-parse", "--git-path", "objects")).resolve()
    shallow = repository / lender.line("rev-parse", "--git-path", "shallow")
    if lender.line_or_none("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}") is None:
        raise GitFailed(f"{repository} does not have this commit; fetch it there first")
    git = Git(destination, TIMEOUT_SECONDS)
    kind = "sha256" if len(commit) == 64 else "sha1"
    git("init", "--quiet", "--template=", f"--object-format={kind}")
    information = destination / ".git" / "objects" / "info"
    information.mkdir(exist_ok=True)
    (information / "alternates").write_bytes(os.fsencode(objects) + b"\n")
    if shallow.is_file():
        shutil.copyfile(shallow, destination / ".git" / "shallow")
    git("checkout", "--quiet", "--force", "--detach", commit)
    return git


def _restore_submodule(submodule: Submodule, destination: Path, repository: Path) -> None:
    if submodule.state is None:
        return
    with _folder(destination, _confined(submodule.path)):
        pass  # refuses to go through a link
    path = os.fsdecode(submodule.path)
    _restore(submodule.state, destination / path, repository / path)


def _write(destination: Path, file: UntrackedFile) -> None:
    *folders, name = _confined(file.path)
    with _folder(destination, folders) as folder:
        if file.mode == LINK:
            os.symlink(file.content, name, dir_fd=folder)
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        mode = 0o777 if file.mode == "100755" else 0o666
        with open(os.open(name, flags, mode, dir_fd=folder), "wb") as opened:
            opened.write(file.content)


def _confined(path: bytes) -> list[bytes]:
    parts = path.split(b"/")
    reserved = (b"", b".", b"..", b".git")
    if b"\0" in path or any(part.lower().rstrip(b". ") in reserved for part in parts):
        raise GitFailed(f"the path {path!r} leaves the folder")
    return parts


@contextmanager
def _folder(root: Path, parts: Iterable[bytes]) -> Iterator[int]:
    """Open a folder below `root`, made where it is missing, step by step and through no link."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    handle = os.open(root, flags)
    try:
        for part in parts:
            try:
                os.mkdir(part, dir_fd=handle)
            except FileExistsError:
                pass
            below = os.open(part, flags | os.O_NOFOLLOW, dir_fd=handle)
            os.close(handle)
            handle = below
        yield handle
    finally:
        os.close(handle)
