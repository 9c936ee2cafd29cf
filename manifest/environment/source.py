"""The source of a run: the commit, and every byte that differs from it.

All questions are asked on a copy of the index, with new objects kept in a folder of ours, so that
the user's repository is only ever read. The patch is the difference of two trees, the second made
from the working tree; patch and tree therefore cannot disagree, and whoever restores can check.
Runs git: for a launcher or a background thread.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from manifest.environment.redaction import redact_url
from manifest.errors import NotReplayable
from manifest.identity import new_run_id

_TIMEOUT_SECONDS: Final = 60
_MOST_BYTES_A_FILE: Final = 8 * 2**20
_MOST_BYTES: Final = 64 * 2**20
_MOST_FILES: Final = 5_000
_GITLINK: Final = "160000"
_LINK: Final = "120000"
_KEPT_VARIABLES: Final = ("GIT_CEILING_DIRECTORIES", "GIT_CONFIG", "GIT_DISCOVERY")
_VARIABLES: Final = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "LC_ALL": "C",
}
_CONFIG: Final = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.quotepath": "off",
    "core.safecrlf": "false",
    "core.splitIndex": "false",
    "core.untrackedCache": "false",
    "apply.ignoreWhitespace": "no",
    "protocol.allow": "never",
    "submodule.recurse": "false",
    "gc.auto": "0",
}
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
class Submodule:
    """Another repository inside this one."""

    path: bytes
    commit: str | None
    """The commit checked out there; None where nothing is."""
    is_dirty: bool


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
        dirty = (_shown(item.path) for item in self.submodules if item.is_dirty)
        return (*files, *(f"{path}: a submodule with uncommitted changes" for path in dirty))


class _GitFailed(Exception):
    """Git said no; the text is what it said."""


def capture_source(
    start: Path,
    *,
    most_bytes_a_file: int = _MOST_BYTES_A_FILE,
    most_bytes: int = _MOST_BYTES,
    timeout_seconds: float = _TIMEOUT_SECONDS,
) -> SourceState:
    """Read the repository around a folder; never raises.

    Args:
        start: A folder in the repository.
        most_bytes_a_file: Larger files are named in `left_out`, not kept.
        most_bytes: The same for all files together, the smaller ones first.
        timeout_seconds: For each question to git.
    """
    git = _Git(start, timeout_seconds)
    try:
        repository = _Repository.around(git)
    except (_GitFailed, OSError) as error:
        return SourceState(problem=str(error))
    limits = _Limits(most_bytes_a_file, most_bytes)
    known = SourceState()
    try:
        known = repository.describe()
        return repository.capture(known, limits)
    except (_GitFailed, OSError, ValueError) as error:
        return replace(known, root=repository.root, problem=str(error) or type(error).__name__)


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
    if state.problem or not state.commit:
        raise NotReplayable([state.problem or "the run recorded no commit"])
    if not _is_object_name(state.commit):
        raise NotReplayable([f"{state.commit[:80]!r} is not the name of a commit"])
    try:
        return _restore(state, destination, repository)
    except (_GitFailed, OSError) as error:
        raise NotReplayable([f"the source of {state.commit[:12]}: {error}"]) from error


class _Git:
    """Git in one folder, with nothing of the user's surroundings that could change its answers."""

    def __init__(self, folder: Path, timeout_seconds: float, **variables: str) -> None:
        self.folder = folder
        self.timeout_seconds = timeout_seconds
        self.variables = variables

    def __call__(self, *arguments: str, stdin: bytes = b"") -> bytes:
        options = [item for pair in _CONFIG.items() for item in ("-c", "=".join(pair))]
        try:
            done = subprocess.run(
                ["git", "-C", str(self.folder), *options, *arguments],
                input=stdin,
                capture_output=True,
                env=self._environ(),
                timeout=self.timeout_seconds,
                start_new_session=True,  # Ctrl-C is for the program
                check=False,
            )
        except FileNotFoundError:
            raise _GitFailed("git is not installed") from None
        except subprocess.TimeoutExpired:
            raise _GitFailed(f"git {arguments[0]} took over {self.timeout_seconds} s") from None
        if done.returncode:
            told = done.stderr.decode("utf-8", "replace").strip() or f"exit {done.returncode}"
            raise _GitFailed(f"git {arguments[0]}: {told[:500]}")
        return done.stdout

    def line(self, *arguments: str) -> str:
        return os.fsdecode(self(*arguments).removesuffix(b"\n"))

    def line_or_none(self, *arguments: str) -> str | None:
        try:
            return self.line(*arguments) or None
        except _GitFailed:
            return None

    def with_variables(self, **variables: str) -> _Git:
        return _Git(self.folder, self.timeout_seconds, **{**self.variables, **variables})

    def _environ(self) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("GIT_") or name.startswith(_KEPT_VARIABLES)
        }
        return inherited | _VARIABLES | self.variables


class _Limits:
    """How much is kept; smaller files first, so that one log does not push out the scripts."""

    def __init__(self, most_bytes_a_file: int, most_bytes: int) -> None:
        self.most_bytes_a_file = most_bytes_a_file
        self.bytes_left = most_bytes
        self.files_left = _MOST_FILES

    def refuse(self, size: int) -> str | None:
        if size > self.most_bytes_a_file:
            return f"{size} bytes, more than the {self.most_bytes_a_file} kept of one file"
        if size > self.bytes_left or not self.files_left:
            return "beyond what is kept of all files together"
        self.bytes_left -= size
        self.files_left -= 1
        return None


@dataclass(frozen=True, slots=True)
class _Change:
    """One line of ``git diff-index --raw``: a path that differs from the commit."""

    path: bytes
    status: str
    old_mode: str
    old_name: str

    @property
    def as_before(self) -> bytes:
        """Puts the path in an index back to the commit; mode 0 removes it."""
        return f"{self.old_mode} {self.old_name}\t".encode() + self.path + b"\0"

    @property
    def as_removed(self) -> bytes:
        return f"0 {'0' * len(self.old_name)}\t".encode() + self.path + b"\0"


class _Repository:
    """A working tree and its repository."""

    def __init__(self, git: _Git, root: Path, index: Path, objects: Path) -> None:
        self.git = git
        self.root = root
        self.index = index
        self.objects = objects

    @classmethod
    def around(cls, git: _Git) -> _Repository:
        if not git.folder.is_dir():
            raise _GitFailed(f"{git.folder} is not a folder")
        if git.line("rev-parse", "--is-bare-repository") == "true":
            raise _GitFailed(f"{git.folder} is in a bare repository, without a working tree")
        root = Path(git.line("rev-parse", "--show-toplevel"))
        git = _Git(root, git.timeout_seconds)
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
            tree = _add_untracked(work, untracked)
        submodules = tuple(self._submodule(path) for path in links)
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
        except _GitFailed:  # there are none
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

    def _prepare(self, work: _Git) -> list[bytes]:
        # Marked "assume unchanged" or "skip", a file can differ without git saying so.
        marked, links = [], []
        for entry in _entries(work("ls-files", "-v", "--stage", "-z")):
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
        except _GitFailed:
            pass  # says with its exit code that there are changes
        return links

    def _take_changes(self, work: _Git, commit: str, limits: _Limits) -> list[LeftOut]:
        raw = ("diff-index", "--raw", "--no-renames", "--no-abbrev", "-z")
        told = work(*raw, "--ignore-submodules=dirty", commit)
        changes = {change.path: change for change in _changes(told)}.values()
        sizes = _object_sizes(work, [change.old_name for change in changes])
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
        sized = [(_size(self._within(path)), path) for path in _entries(told)]
        for size, path in sorted(sized):
            if path.endswith(b"/"):
                left_out.append(LeftOut(path, 0, "a repository of its own"))
            elif reason := limits.refuse(size):
                left_out.append(LeftOut(path, size, reason))
            elif (read := _read(self._within(path), path)) is not None:
                kept.append(read)
            else:
                left_out.append(LeftOut(path, size, "not a file that can be read"))
        return sorted(kept, key=lambda item: item.path), left_out

    def _submodule(self, path: bytes) -> Submodule:
        folder = Path(os.fsdecode(self._within(path)))
        if not (folder / ".git").exists():
            return Submodule(path, commit=None, is_dirty=False)
        git = _Git(folder, self.git.timeout_seconds)
        commit = git.line_or_none("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        return Submodule(path, commit, is_dirty=bool(git("status", "--porcelain")))

    def _within(self, path: bytes) -> bytes:
        return os.path.join(os.fsencode(self.root), path)


class _Scratch:
    """A folder for this one question; its name is not drawn from a generator of the program."""

    def __init__(self) -> None:
        self.folder = Path(os.environ.get("TMPDIR") or "/tmp") / f"manifest-{new_run_id()}"  # noqa: S108

    def __enter__(self) -> Path:
        self.folder.mkdir(mode=0o700)  # fails, rather than uses what someone else has put there
        return self.folder

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _borrowing(git: _Git, objects: Path, folder: Path) -> _Git:
    (folder / "objects").mkdir()
    quoted = str(objects).replace("\\", "\\\\").replace('"', '\\"')
    return git.with_variables(
        GIT_INDEX_FILE=str(folder / "index"),
        GIT_OBJECT_DIRECTORY=str(folder / "objects"),
        GIT_ALTERNATE_OBJECT_DIRECTORIES=f'"{quoted}"',
    )


def _verify(git: _Git, commit: str, patch: bytes, tree: str) -> None:
    if not patch:
        return
    git("read-tree", commit)
    git("apply", "--cached", "--whitespace=nowarn", "-", stdin=patch)
    if git.line("write-tree") != tree:
        raise _GitFailed("the patch that git makes of the changes does not give them back")


def _add_untracked(git: _Git, files: Iterable[UntrackedFile]) -> str:
    # Named as they are, without the filters that git would apply, and without being stored.
    length = len(tree := git.line("write-tree"))
    lines = [
        f"{file.mode} {_blob_name(file.content, length)}\t".encode() + file.path + b"\0"
        for file in files
    ]
    if not lines:
        return tree
    git("update-index", "-z", "--index-info", stdin=b"".join(lines))
    return git.line("write-tree", "--missing-ok")


def _blob_name(content: bytes, length: int) -> str:
    data = b"blob %d\0" % len(content) + content
    if length == 64:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def _changes(raw: bytes) -> Iterator[_Change]:
    fields = _entries(raw)
    for told, path in zip(fields[::2], fields[1::2], strict=True):
        old_mode, _, old_name, _, status = told.decode("ascii").lstrip(":").split(" ")
        yield _Change(path, status[0], old_mode, old_name)


def _object_sizes(git: _Git, names: list[str]) -> dict[str, int]:
    told = git("cat-file", "--batch-check", stdin="".join(f"{n}\n" for n in names).encode())
    # A submodule's commit, and the name of nothing, are "missing".
    last = (line.split()[-1] for line in told.decode("ascii").splitlines())
    return dict(zip(names, (int(size) if size.isdigit() else 0 for size in last), strict=True))


def _entries(told: bytes) -> list[bytes]:
    return told.split(b"\0")[:-1]


def _size(path: bytes) -> int:
    try:
        found = os.lstat(path)
    except OSError:
        return 0
    return 0 if stat.S_ISDIR(found.st_mode) else found.st_size


def _read(path: bytes, name: bytes) -> UntrackedFile | None:
    try:
        if stat.S_ISLNK(os.lstat(path).st_mode):
            return UntrackedFile(name, _LINK, os.readlink(path))
        # Never waits for the other end of a pipe.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            mode = os.fstat(handle).st_mode
            if not stat.S_ISREG(mode):
                return None
            return UntrackedFile(name, "100755" if mode & 0o100 else "100644", file.read())
    except OSError:
        return None


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def _restore(state: SourceState, destination: Path, repository: Path) -> str:
    destination.mkdir(parents=True, exist_ok=True)
    if any(destination.iterdir()):
        raise _GitFailed(f"{destination} is not empty")
    commit = state.commit or ""
    git = _check_out(commit, destination, repository)
    if state.patch:
        git("apply", "--index", "--whitespace=nowarn", "-", stdin=state.patch)
    for file in state.untracked:
        _write(destination, file)
    root = os.fsencode(destination)
    written = (_read(os.path.join(root, file.path), file.path) for file in state.untracked)
    index = destination / ".git" / "index.manifest"
    shutil.copy2(destination / ".git" / "index", index)
    try:
        copied = git.with_variables(GIT_INDEX_FILE=str(index))
        tree = _add_untracked(copied, (file for file in written if file is not None))
    finally:
        index.unlink()
    if tree != state.tree:
        raise _GitFailed(f"expected the tree {state.tree}, found {tree}")
    for submodule in state.submodules:
        _restore_submodule(submodule, destination, repository)
    return tree


def _check_out(commit: str, destination: Path, repository: Path) -> _Git:
    lender = _Git(repository, _TIMEOUT_SECONDS)
    objects = (repository / lender.line("rev-parse", "--git-path", "objects")).resolve()
    shallow = repository / lender.line("rev-parse", "--git-path", "shallow")
    if lender.line_or_none("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}") is None:
        raise _GitFailed(f"{repository} does not have this commit; fetch it there first")
    git = _Git(destination, _TIMEOUT_SECONDS)
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
    if submodule.commit is None:
        return
    if not _is_object_name(submodule.commit):
        raise _GitFailed(f"{submodule.commit[:80]!r} is not the name of a commit")
    *folders, name = _confined(submodule.path)
    with _folder(destination, [*folders, name]):
        pass  # refuses to go through a link
    path = os.fsdecode(submodule.path)
    _check_out(submodule.commit, destination / path, repository / path)


def _write(destination: Path, file: UntrackedFile) -> None:
    *folders, name = _confined(file.path)
    with _folder(destination, folders) as folder:
        if file.mode == _LINK:
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
        raise _GitFailed(f"the path {path!r} leaves the folder")
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


def _is_object_name(text: str) -> bool:
    return len(text) in (40, 64) and not set(text) - set("0123456789abcdef")
