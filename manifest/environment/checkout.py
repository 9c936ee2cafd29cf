"""Captured source, laid out again: the commit, and every byte that differs from it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from manifest.environment.git import (
    TIMEOUT_SECONDS,
    Git,
    GitFailed,
    blob_name,
    entries,
    is_object_name,
    object_sizes,
    read_changes,
)
from manifest.environment.source import (
    LINK,
    SourceState,
    Submodule,
    UntrackedFile,
    add_untracked,
)
from manifest.errors import NotReplayable

# Several times what is captured: a patch is text from elsewhere, and can unfold to any size.
MOST_FOLDERS: Final = 200
"""Of a path in a project."""
_MOST_MEMORY_BYTES: Final = 512 << 20
_MOST_CHANGED_BYTES: Final = 128 << 20
_NOBODYS_CONFIGURATION: Final = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
"""So that no filter of the user's, such as that of LFS, is run on what a manifest names."""


def restore_source(state: SourceState, destination: Path, repository: Path) -> str:
    """Lay out captured source in an empty folder, as a repository of its own.

    The new repository borrows the objects of `repository`, which is only read. Nothing is written
    through a link or outside `destination`, whatever the state says, and nothing at all before it
    is known to be what was captured. Filters are not run: what one makes, such as the files of
    LFS, is left as git keeps it.

    Args:
        state: What `capture_source` gave, or a copy that was kept since; not trusted.
        destination: An empty folder, or none yet.
        repository: A clone that has the commit.

    Returns:
        The tree that is there now, equal to ``state.tree`` where that is known.

    Raises:
        NotReplayable: A part is missing, or what came out is not what was captured.
    """
    with _explained(state):
        return _restore(state, destination, repository)


def check_source(state: SourceState, folder: Path, repository: Path) -> dict[str, str]:
    """See whether captured source can be laid out, without doing it.

    Args:
        state: As for `restore_source`.
        folder: An empty folder to work in, or none yet.
        repository: A clone that has the commit.

    Returns:
        Git's name of the content of every file, by path.

    Raises:
        NotReplayable: As `restore_source` would.
    """
    with _explained(state):
        git = _prepare(state, folder, repository)
        _verify(git, state)
        for submodule in state.submodules:
            if submodule.state is not None and confined(submodule.path):
                commit = submodule.state.commit or ""
                _lender(commit, repository / os.fsdecode(submodule.path))
        staged = (entry.partition(b"\t") for entry in entries(git("ls-files", "--stage", "-z")))
        names = {os.fsdecode(path): told.split()[1].decode() for told, _, path in staged}
        length = len(git.line("rev-parse", "HEAD"))
        return names | {
            os.fsdecode(file.path): blob_name(file.content, length) for file in state.untracked
        }


def filtered_paths(destination: Path) -> set[str]:
    """The files laid out that git would have passed through a filter of the user's."""
    git = Git(destination, TIMEOUT_SECONDS, **_NOBODYS_CONFIGURATION)
    names = git("ls-files", "-z")
    if not any(name.rpartition(b"/")[2] == b".gitattributes" for name in entries(names)):
        return set()
    told = entries(git("check-attr", "-z", "--stdin", "filter", stdin=names))
    pairs = zip(told[::3], told[2::3], strict=True)
    return {os.fsdecode(path) for path, value in pairs if value not in (b"unspecified", b"unset")}


@contextmanager
def _explained(state: SourceState) -> Iterator[None]:
    if state.problem or not state.commit:
        raise NotReplayable([state.problem or "the run recorded no commit"])
    if not is_object_name(state.commit):
        raise NotReplayable([f"{state.commit[:80]!r} is not the name of a commit"])
    try:
        yield
    except (GitFailed, OSError, ValueError) as error:
        raise NotReplayable([f"the source of {state.commit[:12]}: {error}"]) from error


def _restore(state: SourceState, destination: Path, repository: Path) -> str:
    git = _prepare(state, destination, repository)
    tree = _verify(git, state)
    git("checkout-index", "--all", "--quiet", "--index")
    for file in state.untracked:
        _write(destination, file)
    for submodule in state.submodules:
        _restore_submodule(submodule, destination, repository)
    return tree


def _prepare(state: SourceState, destination: Path, repository: Path) -> Git:
    """Make a repository whose index is the commit with the patch."""
    destination.mkdir(parents=True, exist_ok=True)
    if any(destination.iterdir()):
        raise GitFailed(f"{destination} is not empty")
    git = _borrow(state.commit or "", destination, repository)
    if state.patch:
        patched = ("apply", "--cached", "--whitespace=nowarn", "-")
        git(*patched, stdin=state.patch, most_bytes=_MOST_MEMORY_BYTES)
        changes = list(
            read_changes(
                git("diff-index", "--raw", "-z", "--no-abbrev", "--cached", "--no-renames", "HEAD")
            )
        )
        sizes = object_sizes(git, [change.new_name for change in changes])
        if sum(sizes[change.new_name] for change in changes) > _MOST_CHANGED_BYTES:
            raise GitFailed("the patch makes files that are far too large")
    return git


def _verify(git: Git, state: SourceState) -> str:
    for file in state.untracked:
        confined(file.path)
    index = git.folder / ".git" / "index.manifest"
    shutil.copy2(git.folder / ".git" / "index", index)
    try:
        tree = add_untracked(git.with_variables(GIT_INDEX_FILE=str(index)), state.untracked)
    finally:
        index.unlink()
    if tree != state.tree and state.tree is not None:
        raise GitFailed(f"expected the tree {state.tree}, found {tree}")
    return tree


def _lender(commit: str, repository: Path) -> Git:
    if not is_object_name(commit):
        raise GitFailed(f"{commit[:80]!r} is not the name of a commit")
    lender = Git(repository, TIMEOUT_SECONDS)
    if lender.line_or_none("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}") is None:
        raise GitFailed(f"{repository} does not have this commit; fetch it there first")
    return lender


def _borrow(commit: str, destination: Path, repository: Path) -> Git:
    lender = _lender(commit, repository)
    objects = (repository / lender.line("rev-parse", "--git-path", "objects")).resolve()
    shallow = repository / lender.line("rev-parse", "--git-path", "shallow")
    ignored = repository / lender.line("rev-parse", "--git-path", "info/exclude")
    git = Git(destination, TIMEOUT_SECONDS, **_NOBODYS_CONFIGURATION)
    kind = "sha256" if len(commit) == 64 else "sha1"
    git("init", "--quiet", "--template=", f"--object-format={kind}")
    for name in ("core.autocrlf", "core.eol"):  # else text is laid out with other line ends
        if (value := lender.line_or_none("config", name)) is not None:
            git("config", name, value)
    own = destination / ".git"
    (own / "objects" / "info").mkdir(exist_ok=True)
    (own / "objects" / "info" / "alternates").write_bytes(os.fsencode(objects) + b"\n")
    if shallow.is_file():
        shutil.copyfile(shallow, own / "shallow")
    if ignored.is_file():
        (own / "info").mkdir(exist_ok=True)
        shutil.copyfile(ignored, own / "info" / "exclude")
    git("update-ref", "--no-deref", "HEAD", commit)
    git("read-tree", commit)
    return git


def _restore_submodule(submodule: Submodule, destination: Path, repository: Path) -> None:
    if submodule.state is None:
        return
    with _folder(destination, confined(submodule.path)):
        pass  # refuses to go through a link
    path = os.fsdecode(submodule.path)
    with _explained(submodule.state):
        _restore(submodule.state, destination / path, repository / path)


def _write(destination: Path, file: UntrackedFile) -> None:
    *folders, name = confined(file.path)
    with _folder(destination, folders) as folder:
        if file.mode == LINK:
            os.symlink(file.content, name, dir_fd=folder)
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        mode = 0o777 if file.mode == "100755" else 0o666
        with open(os.open(name, flags, mode, dir_fd=folder), "wb") as opened:
            opened.write(file.content)


def confined(path: bytes) -> list[bytes]:
    """The parts of a path that stays in its folder, and out of any repository in it.

    Raises:
        GitFailed: It does not.
    """
    parts = path.split(b"/")
    reserved = (b"", b".", b"..", b".git")
    is_reserved = any(part.lower().rstrip(b". ") in reserved for part in parts)
    if is_reserved or b"\0" in path or len(parts) > MOST_FOLDERS:
        raise GitFailed(f"the path {path[:200]!r} leaves the folder")
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
