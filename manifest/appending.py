"""A file that is only appended to: this one and no other, whatever the program does to its number.

A program may close descriptors that it did not open, as daemons do, or put a file of its own in
the place of one. Whoever went on by the number would write into that.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_LOWEST_AFTERWARDS: Final = 64  # those below may be what the program expects to get next
_HIGHEST_STANDARD: Final = 2


class AppendedFile:
    """A file to which this process alone appends."""

    def __init__(self, path: Path | str, *, mode: int = 0o666, is_new: bool = True) -> None:
        """Open the file.

        Args:
            path: Where it lies.
            mode: What may be done to it, less the umask.
            is_new: Refuse one that is there already.

        Raises:
            FileExistsError: It is there already.
            OSError: It cannot be written.
        """
        self._path = os.fspath(path)
        flags = os.O_CREAT | (os.O_EXCL if is_new else 0)
        self._file = _opened(self._path, flags, mode)
        self._identity = _identity(self._file)
        self._end = os.lseek(self._file, 0, os.SEEK_END)

    def write(self, data: bytes) -> int:
        """Append bytes, in one write.

        Returns:
            How many were written.

        Raises:
            OSError: None were.
        """
        self._hold()
        written = os.write(self._file, data)
        self._end += written
        return written

    def status(self) -> os.stat_result:
        """What the system says of the file.

        Raises:
            OSError: It is gone.
        """
        self._hold()
        return os.fstat(self._file)

    def close(self) -> None:
        """Let go of the file; what was written is there.

        Raises:
            OSError: The system could not keep what was written before.
        """
        file, self._file = self._file, -1
        if self._is_held_by(file):
            os.close(file)

    def _hold(self) -> None:
        # Where it ends is asked for in a fifth of the time that its identity would take; at the
        # beginning, any file may be.
        try:
            if self._end and os.lseek(self._file, 0, os.SEEK_CUR) == self._end:
                return
        except OSError:
            pass
        if not self._is_held_by(self._file):
            self._file = self._opened_again()
        self._end = os.lseek(self._file, 0, os.SEEK_END)

    def _opened_again(self) -> int:
        file = _apart(_opened(self._path))
        if self._is_held_by(file):
            return file
        os.close(file)
        raise OSError(f"another file is there in its place: {self._path}")

    def _is_held_by(self, file: int) -> bool:
        try:
            return _identity(file) == self._identity
        except OSError:
            return False


def _opened(path: str, flags: int = 0, mode: int = 0) -> int:
    file = os.open(path, flags | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, mode)
    # A program that is started without standard streams must not find one in this.
    return file if file > _HIGHEST_STANDARD else _apart(file)


def _apart(file: int) -> int:
    from fcntl import F_DUPFD_CLOEXEC, fcntl  # hardly any program comes here

    try:
        return fcntl(file, F_DUPFD_CLOEXEC, _LOWEST_AFTERWARDS)
    finally:
        os.close(file)


def _identity(file: int) -> tuple[int, int]:
    status = os.fstat(file)
    return status.st_dev, status.st_ino
