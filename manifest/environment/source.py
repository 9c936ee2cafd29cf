"""The source of a run: the commit, and every byte that differs from it.

All questions are asked on a copy of the index, with new objects kept in a folder of ours, so that
the user's repository is only ever read. The patch is the difference of two trees, the second made
from the working tree; patch and tree therefore cannot disagree, and whoever restores can check.
Runs git: for a launcher or a background thread.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from manifest.environment.git import (
    TIMEOUT_SECONDS,
    Git,
    GitFailed,
    blob_name,
    entries,
    object_sizes,
    read_changes,
)
from manifest.environment.redaction import redact_url
from manifest.identity import new_run_id

_MOST_BYTES_A_FILE: Final = 8 * 2**20
_MOST_BYTES: Final = 64 * 2**20
_MOST_FILES: Final = 5_000
_MOST_SUBMODULES: Final = 100
_GITLINK: Final = "160000"
LINK: Final = "120000"
"""The mode of a symbolic link."""

# What the user's configuration could otherwise turn into something that cannot be applied.
_DIFF: Final = (
    *("diff", "--binary", "--full-index", "--no-ext-diff", "--no-color", "--no-textconv"),
    *("--src-prefix=a/", "--dst-prefix=b/", "--no-relative", "--unified=3", "--find-renames=50%"),
    *("--inter-hunk-context=0", "--submodule=short", "--ignore-submodules=none", "-O/dev/null"),
)


@dataclass(frozen=True, slots=True)
class UntrackedFile:
    """A file that git does not track and was not told to ignore."""

    path: bytes
    """Relative to the root, as the file system has it."""
    mode: str
    """``100644``, ``100755``, or ``120000`` for a link, whose content is its target."""
    content: bytes


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A changed or untracked file whose bytes were not kept."""

    path: bytes
    size: int
    reason: str


@dataclass(frozen=True, slots=True)
class SourceState:
    """The source at one moment; with `problem` set, only what was learned before it is filled."""

    problem: str | None = None
    """Why the source could not be captured, in one sentence."""
    root: Path | None = None
    commit: str | None = None
    branch: str | None = None
    remote: str | None = None
    """The address of ``origin``, else of the first remote; without credentials, as all."""
    remotes: Mapping[str, str] = field(default_factory=dict)
    is_dirty: bool = False
    patch: bytes = b""
    """From the commit to the working tree, staged or not; ends where git ended it."""
    untracked: tuple[UntrackedFile, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    submodules: tuple[Submodule, ...] = ()
    tree: str | None = None
    """Git's name for commit, patch and untracked files together."""

    @property
    def gaps(self) -> tuple[str, ...]:
        """Why a restored copy would not be all of the source; empty when it would be."""
        if self.problem:
            return (self.problem,)
        files = (f"{_shown(item.path)}: {item.reason}" for item in self.left_out)
        return (*files, *(gap for item in self.submodules for gap in item.gaps))


@dataclass(frozen=True, slots=True)
class Submodule:
    """Another repository inside this one."""

    path: bytes
    state: SourceState | None
    """Its own source, as whole as that around it; None where nothing is checked out."""
    is_published: bool = True
    """Whether its commit was fetched from somewhere, and so may be fetched again."""

    @property
    def is_dirty(self) -> bool:
        """Whether it differs from the commit that is checked out there."""
        return self.state is not None and self.state.is_dirty

    @property
    def gaps(self) -> tuple[str, ...]:
        """Why a restored copy would not be all of it; see `SourceState.gaps`."""
        if self.state is None:
            return ()
        path = _shown(self.path)
        gaps = tuple(f"{path}: {gap}" for gap in self.state.gaps)
        if self.is_published:
            return gaps
        name = (self.state.commit or "")[:12]
        return (*gaps, f"{path}: the commit {name} of a submodule, which may exist only here")


def capture_source(
    start: Path,
    *,
    most_bytes_a_file: int = _MOST_BYTES_A_FILE,
    most_bytes: int = _MOST_BYTES,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> SourceState:
    """Read the repository around a folder; never raises.

    Args:
        start: A folder in the repository.
        most_bytes_a_file: Larger files are named in `left_out`, not kept.
        most_bytes: The same for all files together, the smaller ones first.
        timeout_seconds: For each question to git.
    """
    return _captured(Git(start, timeout_seconds), _Limits(most_bytes_a_file, most_bytes))


def _captured(git: Git, limits: _Limits) -> SourceState:
    try:
        repository = _Repository.around(git)
    except (GitFailed, OSError) as error:
        return SourceState(problem=str(error))
    known = SourceState()
    try:
        known = repository.describe()
        return repository.capture(known, limits)
    except (GitFailed, OSError, ValueError) as error:
        return replace(known, root=repository.root, problem=str(error) or type(error).__name__)


class _Limits:
    """How much is kept; smaller files first, so that one log does not push out the scripts."""

    def __init__(self, most_bytes_a_file: int, most_bytes: int) -> None:
        self.most_bytes_a_file = most_bytes_a_file
        self.bytes_left = most_bytes
        self.files_left = _MOST_FILES
        self.submodules_left = _MOST_SUBMODULES

    def refuse(self, size: int) -> str | None:
        if size > self.most_bytes_a_file:
            return f"{size} bytes, more than the {self.most_bytes_a_file} kept of one file"
        if size > self.bytes_left or not self.files_left:
            return "beyond what is kept of all files together"
        self.bytes_left -= size
        self.files_left -= 1
        return None


class _Repository:
    """A working tree and its repository."""

    def __init__(self, git: Git, root: Path, index: Path, objects: Path) -> None:
        self.git = git
        self.root = root
        self.index = index
        self.objects = objects

    @classmethod
    def around(cls, git: Git) -> _Repository:
        if not git.folder.is_dir():
            raise GitFailed(f"{git.folder} is not a folder")
        if git.line("rev-parse", "--is-bare-repository") == "true":
            raise GitFailed(f"{git.folder} is in a bare repository, without a working tree")
        root = Path(git.line("rev-parse", "--show-toplevel"))
        git = Git(root, git.timeout_seconds)
        index, objects = (git.line("rev-parse", "--git-path", it) for it in ("index", "objects"))
        return cls(git, root, root / index, root / objects)

    def describe(self) -> SourceState:
        commit = self.git.line_or_none("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        branch = self.git.line_or_none("symbolic-ref", "--short", "--quiet", "HEAD")
        remotes = self._remotes()
        return SourceState(
            root=self.root,
            commit=commit,
            branch=branch,
            remote=remotes.get("origin") or next(iter(remotes.values()), None),
            remotes=remotes,
        )

    def capture(self, known: SourceState, limits: _Limits) -> SourceState:
        if known.commit is None:
            return replace(known, problem=self._without_commit(known.branch))
        with _Scratch() as folder:
            work = _borrowing(self.git, self.objects, folder)
            self._copy_index(folder / "index")
            links = self._prepare(work)
            left_out = self._take_changes(work, known.commit, limits)
            tracked = work.line("write-tree")
            patch = work(*_DIFF, known.commit, tracked)
            check = work.with_variables(GIT_INDEX_FILE=str(folder / "check"))
            _verify(check, known.commit, patch, tracked)
            untracked, more = self._untracked(limits)
            tree = add_untracked(work, untracked)
        submodules = tuple(self._submodule(path, limits) for path in links)
        return replace(
            known,
            is_dirty=bool(patch or untracked or left_out or more)
            or any(submodule.is_dirty for submodule in submodules),
            patch=patch,
            untracked=tuple(untracked),
            left_out=(*left_out, *more),
            submodules=submodules,
            tree=tree,
        )

    def _remotes(self) -> dict[str, str]:
        try:
            told = self.git("config", "--null", "--get-regexp", r"^remote\..*\.url$")
        except GitFailed:  # there are none
            return {}
        pairs = (os.fsdecode(entry).partition("\n") for entry in told.split(b"\0") if entry)
        remotes: dict[str, str] = {}
        for key, _, url in pairs:
            remotes.setdefault(key[len("remote.") : -len(".url")], redact_url(url))
        return remotes

    def _without_commit(self, branch: str | None) -> str:
        name = self.git.line_or_none("rev-parse", "--verify", "--quiet", "HEAD")
        if branch is not None and name is None:
            return f"the branch {branch} has no commit yet"
        return f"HEAD is damaged: the commit {name or '?'} cannot be read"

    def _copy_index(self, copy: Path) -> None:
        try:
            # With its time: git takes what changed after it for possibly changed again.
            shutil.copy2(self.index, copy)
        except FileNotFoundError:
            return

    def _prepare(self, work: Git) -> list[bytes]:
        # Marked "assume unchanged" or "skip", a file can differ without git saying so.
        marked, links = [], []
        for entry in entries(work("ls-files", "-v", "--stage", "-z")):
            told, _, path = entry.partition(b"\t")
            tag, mode = told[:1], told[2:8]
            if mode == _GITLINK.encode():
                links.append(path)
            if tag.islower() or (tag == b"S" and os.path.lexists(self._within(path))):
                marked.append(path)
        if marked:
            paths = b"\0".join(marked) + b"\0"
            work("update-index", "--no-assume-unchanged", "-z", "--stdin", stdin=paths)
            work("update-index", "--no-skip-worktree", "-z", "--stdin", stdin=paths)
        try:
            work("update-index", "-q", "--refresh", "--unmerged")
        except GitFailed:
            pass  # says with its exit code that there are changes
        return links

    def _take_changes(self, work: Git, commit: str, limits: _Limits) -> list[LeftOut]:
        raw = ("diff-index", "--raw", "--no-renames", "--no-abbrev", "-z")
        told = work(*raw, "--ignore-submodules=dirty", commit)
        changes = {change.path: change for change in read_changes(told)}.values()
        sizes = object_sizes(work, [change.old_name for change in changes])
        sized = [(sizes[c.old_name] + _size(self._within(c.path)), c.path, c) for c in changes]
        lines, added, left_out = [], [], []
        for size, path, change in sorted(sized, key=lambda item: item[:2]):
            if reason := limits.refuse(size):
                lines.append(change.as_before)
                left_out.append(LeftOut(path, _size(self._within(path)), reason))
            elif change.status == "D" or not os.path.lexists(self._within(path)):
                lines.append(change.as_removed)
            else:
                added.append(path + b"\0")
        if lines:
            work("update-index", "-z", "--index-info", stdin=b"".join(lines))
        if added:
            from_stdin = ("--pathspec-from-file=-", "--pathspec-file-nul")
            work("add", "-A", "-f", *from_stdin, stdin=b"".join(added))
        return left_out

    def _untracked(self, limits: _Limits) -> tuple[list[UntrackedFile], list[LeftOut]]:
        told = self.git("ls-files", "-z", "--others", "--exclude-standard", "-x", "__pycache__/")
        kept, left_out = [], []
        sized = [(_size(self._within(path)), path) for path in entries(told)]
        for size, path in sorted(sized):
            if path.endswith(b"/"):
                left_out.append(LeftOut(path, 0, "a repository of its own"))
            elif reason := limits.refuse(size):
                left_out.append(LeftOut(path, size, reason))
            elif (read := _read_file(self._within(path), path)) is not None:
                kept.append(read)
            else:
                left_out.append(LeftOut(path, size, "not a file that can be read"))
        return sorted(kept, key=lambda item: item.path), left_out

    def _submodule(self, path: bytes, limits: _Limits) -> Submodule:
        folder = Path(os.fsdecode(self._within(path)))
        if not (folder / ".git").exists():
            return Submodule(path, state=None)
        if not limits.submodules_left:
            problem = f"not captured, as one of more than {_MOST_SUBMODULES} submodules"
            return Submodule(path, SourceState(problem=problem))
        limits.submodules_left -= 1
        git = Git(folder, self.git.timeout_seconds)
        state = _captured(git, limits)
        return Submodule(path, state, is_published=state.commit is None or _was_fetched(git))

    def _within(self, path: bytes) -> bytes:
        return os.path.join(os.fsencode(self.root), path)


def _was_fetched(git: Git) -> bool:
    try:
        if not git("rev-list", "--max-count=1", "HEAD", "--not", "--remotes"):
            return True
        # Fetched by its name alone, as submodules are where the clone is shallow.
        shallow = git.folder / git.line("rev-parse", "--git-path", "shallow")
        return git.line("rev-parse", "HEAD") in shallow.read_text(encoding="ascii").split()
    except (GitFailed, OSError):
        return False


class _Scratch:
    """A folder for this one question; its name is not drawn from a generator of the program."""

    def __init__(self) -> None:
        self.folder = Path(os.environ.get("TMPDIR") or "/tmp") / f"manifest-{new_run_id()}"  # noqa: S108

    def __enter__(self) -> Path:
        self.folder.mkdir(mode=0o700)  # fails, rather than uses what someone else has put there
        return self.folder

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _borrowing(git: Git, objects: Path, folder: Path) -> Git:
    (folder / "objects").mkdir()
    quoted = str(objects).replace("\\", "\\\\").replace('"', '\\"')
    return git.with_variables(
        GIT_INDEX_FILE=str(folder / "index"),
        GIT_OBJECT_DIRECTORY=str(folder / "objects"),
        GIT_ALTERNATE_OBJECT_DIRECTORIES=f'"{quoted}"',
    )


def _verify(git: Git, commit: str, patch: bytes, tree: str) -> None:
    if not patch:
        return
    git("read-tree", commit)
    git("apply", "--cached", "--whitespace=nowarn", "-", stdin=patch)
    if git.line("write-tree") != tree:
        raise GitFailed("the patch that git makes of the changes does not give them back")


def add_untracked(git: Git, files: Iterable[UntrackedFile]) -> str:
    """Add files to the index; gives the tree that it then is."""
    # Named as they are, without the filters that git would apply, and without being stored.
    length = len(tree := git.line("write-tree"))
    lines = [
        f"{file.mode} {blob_name(file.content, length)}\t".encode() + file.path + b"\0"
        for file in files
    ]
    if not lines:
        return tree
    git("update-index", "-z", "--index-info", stdin=b"".join(lines))
    return git.line("write-tree", "--missing-ok")


def _size(path: bytes) -> int:
    try:
        found = os.lstat(path)
    except OSError:
        return 0
    return 0 if stat.S_ISDIR(found.st_mode) else found.st_size


def _read_file(path: bytes, name: bytes) -> UntrackedFile | None:
    """Read a file or link as git would take it; None where there is nothing to read."""
    try:
        if stat.S_ISLNK(os.lstat(path).st_mode):
            return UntrackedFile(name, LINK, os.readlink(path))
        with open(path, "rb", opener=_opened) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                return None
            return UntrackedFile(name, "100755" if mode & 0o100 else "100644", file.read())
    except OSError:
        return None


def _opened(path: str, flags: int) -> int:
    # Never waits for the other end of a pipe.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
