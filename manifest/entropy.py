"""Entropy for sources that nobody seeded: one recorded master, a counter for each stream.

Every draw is a keyed BLAKE2b of (process, kind, ordinal), so the same program draws the same
values again from the same master, and no two processes or kinds share a stream.

Source:
    RFC 7693 (BLAKE2), keyed mode.
"""

from __future__ import annotations

import hashlib
import itertools
import os

MASTER_BYTES = 32

_urandom = os.urandom  # bound now: a run may pin `os.urandom` for the program


def new_master() -> bytes:
    """Draw a new 256-bit master from the operating system."""
    return _urandom(MASTER_BYTES)


def hash_seed(master: bytes) -> int:
    """The value for ``PYTHONHASHSEED`` of every process of a run."""
    return int.from_bytes(_draw(master, "", "hash", 0, 4), "little")


class Entropy:
    """What one process draws from the master of its run."""

    def __init__(self, master: bytes, process: str) -> None:
        self.renew(master, process)

    def draw(self, kind: str, size_bytes: int) -> bytes:
        """The next bytes of the stream of this kind."""
        # Without a lock: a signal handler may draw while its own thread does.
        ordinal = next(self._ordinals.setdefault(kind, itertools.count()))
        self._counts[kind] = max(ordinal + 1, self._counts.get(kind, 0))
        return _draw(self._master, self.process, kind, ordinal, size_bytes)

    def bits(self, kind: str, count: int) -> int:
        """The next `count` bits of the stream of this kind, as an integer."""
        data = self.draw(kind, (count + 7) // 8)
        return int.from_bytes(data, "little") >> (-count % 8)

    def counts(self) -> dict[str, int]:
        """How many draws there were of each kind."""
        return dict(self._counts)

    def continue_as(self, process: str) -> None:
        """Draw from the streams of another process from now on: in a fork, after it."""
        self.renew(self._master, process)

    def renew(self, master: bytes, process: str) -> None:
        """Draw from another master: when a run begins in a program where one has ended."""
        self.process = process
        self._master = master
        self._ordinals: dict[str, itertools.count[int]] = {}
        self._counts: dict[str, int] = {}


def _draw(master: bytes, process: str, kind: str, ordinal: int, size: int) -> bytes:
    name = f"{process}\0{kind}\0{ordinal}".encode()
    blocks = []
    for block in range((size + 63) // 64):
        data = name + block.to_bytes(8, "little")
        blocks.append(hashlib.blake2b(data, key=master).digest())
    return b"".join(blocks)[:size]
