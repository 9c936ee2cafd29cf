"""Git, run so that nothing of the user's surroundings changes what it answers.

Runs a process: for a launcher or a background thread.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TIMEOUT_SECONDS: Final = 60
_KEPT_VARIABLES: Final = ("GIT_CEILING_DIRECTORIES", "GIT_CONFIG", "GIT_DISCOVERY")
_LEFT_OUT: Final = ("GIT_", "MANIFEST_")  # git is none of the processes of a run
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


class GitFailed(Exception):
    """Git said no; the text is what it said. Whoever asks says what that means to a user."""


class Git:
    """Git in one folder, with nothing of the user's surroundings that could change its answers."""

    def __init__(self, folder: Path, timeout_seconds: float, **variables: str) -> None:
        self.folder = folder
        self.timeout_seconds = timeout_seconds
        self.variables = variables

    def __call__(self, *arguments: str, stdin: bytes = b"", most_bytes: int | None = None) -> bytes:
        """Ask git, and give what it wrote.

        Args:
            arguments: What to ask.
            stdin: What git reads; it is given only once the limit holds.
            most_bytes: The most memory that git may take, and the largest file it may write.

        Raises:
            GitFailed: It is not there, said no, or took too long.
        """
        options = [item for pair in _CONFIG.items() for item in ("-c", "=".join(pair))]
        try:
            process = subprocess.Popen(
                ["git", "-C", str(self.folder), *options, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environ(),
                start_new_session=True,  # Ctrl-C is for the program
            )
        except FileNotFoundError:
            raise GitFailed("git is not installed") from None
        with process:
            out, said = self._communicate(process, stdin, most_bytes, arguments[0])
        if process.returncode:
            told = said.decode("utf-8", "replace").strip() or f"exit {process.returncode}"
            raise GitFailed(f"git {arguments[0]}: {told[:500]}")
        return out

    def line(self, *arguments: str) -> str:
        """The one line that git answers."""
        return os.fsdecode(self(*arguments).removesuffix(b"\n"))

    def line_or_none(self, *arguments: str) -> str | None:
        """The one line that git answers; None where it says no, or nothing."""
        try:
            return self.line(*arguments) or None
        except GitFailed:
            return None

    def with_variables(self, **variables: str) -> Git:
        """The same, with more variables in git's environment."""
        return Git(self.folder, self.timeout_seconds, **{**self.variables, **variables})

    def _communicate(
        self, process: subprocess.Popen[bytes], stdin: bytes, most_bytes: int | None, what: str
    ) -> tuple[bytes, bytes]:
        try:
            if most_bytes is not None:
                _limit(process.pid, most_bytes)
            return process.communicate(stdin, timeout=self.timeout_seconds)
        except subprocess.TimeoutExpired:
            raise GitFailed(f"git {what} took over {self.timeout_seconds} s") from None
        finally:
            if process.poll() is None:
                process.kill()

    def _environ(self) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_LEFT_OUT) or name.startswith(_KEPT_VARIABLES)
        }
        return inherited | _VARIABLES | self.variables


@dataclass(frozen=True, slots=True)
class Change:
    """One line of ``git diff-index --raw``: a path that differs from the commit."""

    path: bytes
    status: str
    old_mode: str
    old_name: str
    new_name: str
    """All zeros where the file is removed, or not looked at."""

    @property
    def as_before(self) -> bytes:
        """Puts the path in an index back to the commit; mode 0 removes it."""
        return f"{self.old_mode} {self.old_name}\t".encode() + self.path + b"\0"

    @property
    def as_removed(self) -> bytes:
        """Removes the path from an index."""
        return f"0 {'0' * len(self.old_name)}\t".encode() + self.path + b"\0"


def read_changes(raw: bytes) -> Iterator[Change]:
    """Read what ``git diff-index --raw -z`` wrote."""
    fields = entries(raw)
    for told, path in zip(fields[::2], fields[1::2], strict=True):
        old_mode, _, old_name, new_name, status = told.decode("ascii").lstrip(":").split(" ")
        yield Change(path, status[0], old_mode, old_name, new_name)


def _limit(pid: int, most_bytes: int) -> None:
    import resource

    for what in (resource.RLIMIT_DATA, resource.RLIMIT_FSIZE):
        try:
            resource.prlimit(pid, what, (most_bytes, most_bytes))
        except ProcessLookupError:  # it has said no already
            return


def object_sizes(git: Git, names: list[str]) -> dict[str, int]:
    """How large objects are; 0 for what is none."""
    told = git("cat-file", "--batch-check", stdin="".join(f"{n}\n" for n in names).encode())
    # A submodule's commit, and the name of nothing, are "missing".
    last = (line.split()[-1] for line in told.decode("ascii").splitlines())
    return dict(zip(names, (int(size) if size.isdigit() else 0 for size in last), strict=True))


def entries(told: bytes) -> list[bytes]:
    """Split what git wrote with ``-z``."""
    return told.split(b"\0")[:-1]


def blob_name(content: bytes, length: int) -> str:
    """What git calls a file's content, in a repository whose names have so many digits."""
    data = b"blob %d\0" % len(content) + content
    if length == 64:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def is_object_name(text: str) -> bool:
    """Whether this is the whole name of an object, and neither an option nor a reference."""
    return len(text) in (40, 64) and not set(text) - set("0123456789abcdef")
