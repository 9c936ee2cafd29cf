"""An append-only file of entries: what one process of a run said, in order.

One entry a line: the CRC-32 of the JSON text in eight hexadecimal digits, a space, the JSON text.
Each line is one write, so a journal cut at any byte, by a crash or a full disk, reads as a prefix
of its entries.
"""

from __future__ import annotations

import json
import os
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manifest.canonical import Json, plain

Entry = dict[str, Any]


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
        self._lock = threading.Lock()
        self._file = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644
        )

    def append(self, kind: str, **fields: Json) -> None:
        """Write one entry; the first failure is kept in `failure` and silences the rest."""
        with self._lock:
            if self.failure is not None:
                return
            entry = {"n": self._number, "at": time.time_ns() // 1000, "kind": kind, **fields}
            try:
                _write_all(self._file, encode_entry(entry))
            except OSError as error:
                self.failure = error
                return
            self._number += 1

    def section(self, name: str, values: dict[str, Json]) -> None:
        """Write facts of one section; later facts lie over earlier ones."""
        self.append("section", section=name, values=values)

    def note(self, where: str, what: object) -> None:
        """Write that something could not be done."""
        text = f"{type(what).__name__}: {what}" if isinstance(what, BaseException) else str(what)
        self.append("note", where=where, what=text[:1000])

    def close(self) -> None:
        """Let go of the file; what was written survives the process, as every write did."""
        with self._lock:
            os.close(self._file)
            self.failure = self.failure or OSError("the journal is closed")


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
        data = path.read_bytes()
    except FileNotFoundError:
        return
    for number, line in enumerate(data.split(b"\n")[:-1]):
        entry = _decode(line)
        if entry is None or entry.get("n") != number:
            return
        yield entry


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
    return entry if isinstance(entry, dict) else None


def _write_all(file: int, data: bytes) -> None:
    # A short write leaves a torn line, which readers stop at: it must be the last one.
    written = os.write(file, data)
    if written != len(data):
        raise OSError(28, "no space left for the whole entry")
