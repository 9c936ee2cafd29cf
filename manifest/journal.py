"""An append-only file of entries: what one process of a run said, in order.

One entry a line: the CRC-32 of the JSON text in eight hexadecimal digits, a space, the JSON text.
Each line is one write, so a journal cut at any byte, by a crash or a full disk, reads as a prefix
of its entries.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manifest.appending import AppendedFile
from manifest.canonical import Json, plain

Entry = dict[str, Any]

_LONGEST_WAIT_SECONDS = 1.0
_MOST_BYTES = 1 << 29
_END_OF_TIME = 253_402_300_800_000_000  # in microseconds: the year 10000
_time_ns = time.time_ns  # bound now: tests of programs put other clocks in its place


class Journal:
    """Appends the entries of one process; never raises into the program it watches."""

    def __init__(self, path: Path) -> None:
        """Claim `path` for this process.

        Raises:
            FileExistsError: Another process owns this journal.
            OSError: The folder cannot be written.
        """
        self.path = path
        self.failure: OSError | None = None
        self._number = 0
        self._size_bytes = 0
        self._waiting: deque[Entry] = deque()
        self._lock = threading.Lock()
        self._file = AppendedFile(path, mode=0o644)

    def append(self, kind: str, **fields: Json) -> None:
        """Write one entry; the first failure is kept in `failure` and silences the rest.

        Never waits: a signal handler may come here while its own thread is writing. Whoever writes
        then writes this entry too.
        """
        self._waiting.append({"at": _time_ns() // 1000, "kind": kind, **fields})
        while self._waiting and self._lock.acquire(blocking=False):
            try:
                self._write_waiting()
            finally:
                self._lock.release()

    def section(self, name: str, values: dict[str, Json]) -> None:
        """Write facts of one section; later facts lie over earlier ones."""
        self.append("section", section=name, values=values)

    def note(self, where: str, what: object) -> None:
        """Write that something could not be done."""
        text = f"{type(what).__name__}: {what}" if isinstance(what, BaseException) else str(what)
        self.append("note", where=where, what=text[:1000])

    def close(self) -> None:
        """Let go of the file; what was written survives the process, as every write did."""
        if not self._lock.acquire(timeout=_LONGEST_WAIT_SECONDS):
            return
        try:
            self._write_waiting()
            self._file.close()
            self.failure = self.failure or OSError("the journal is closed")
        except OSError as error:
            self.failure = self.failure or error
        finally:
            self._lock.release()

    def _write_waiting(self) -> None:
        while self._waiting:
            entry = self._waiting.popleft()
            if self.failure is None:
                self._write(encode_entry({"n": self._number, **entry}))

    def _write(self, line: bytes) -> None:
        try:
            _write_all(self._file, line)
        except OSError as error:
            self.failure = error
            return
        except BaseException:
            # A signal handler raised, before or after the system wrote: the file knows.
            if self._file.status().st_size > self._size_bytes:
                self._wrote(line)
            raise
        self._wrote(line)

    def _wrote(self, line: bytes) -> None:
        self._number += 1
        self._size_bytes += len(line)


def encode_entry(entry: Entry) -> bytes:
    """One line of a journal."""
    text = json.dumps(plain(entry), separators=(",", ":"), ensure_ascii=False).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def entries(path: Path) -> Iterator[Entry]:
    """Read the valid prefix of a journal.

    Stops at the first line that is cut, damaged or out of order: what stands behind it cannot be
    trusted to be where it was written.
    """
    try:
        data = read_regular(path)
    except FileNotFoundError:
        return
    for number, line in enumerate(data.split(b"\n")[:-1]):
        entry = _decode(line)
        if entry is None or entry.get("n") != number:
            return
        yield entry


def read_regular(path: Path) -> bytes:
    """Read a file of a run directory, which may come from anywhere.

    Raises:
        OSError: It is a pipe or a device, which may never end, or far too large.
    """
    with open(path, "rb", opener=without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if status.st_size > _MOST_BYTES:
            raise OSError(errno.EFBIG, "far too large", str(path))
        return file.read()


def without_waiting(path: str, flags: int) -> int:
    """Open what may be a pipe, as an `opener`: it would hold its reader for ever."""
    return os.open(path, flags | os.O_NONBLOCK)


def _decode(line: bytes) -> Entry | None:
    checksum, _, text = line.partition(b" ")
    try:
        if len(checksum) != 8 or int(checksum, 16) != zlib.crc32(text):
            return None
        entry = json.loads(text)
    except ValueError:
        return None
    except RecursionError:
        return None
    return entry if isinstance(entry, dict) and _is_whole(entry) else None


def _is_whole(entry: Entry) -> bool:
    moment = entry.get("at")
    return isinstance(entry.get("kind"), str) and type(moment) is int and 0 <= moment < _END_OF_TIME


def _write_all(file: AppendedFile, data: bytes) -> None:
    # A short write leaves a torn line, which readers stop at: it must be the last one.
    written = file.write(data)
    if written != len(data):
        raise OSError(28, "no space left for the whole entry")
