"""Leaves: the fingerprint of every tensor, and of every generator, at some steps.

``<process>.tensors`` is a row of frames. Some hold names, others the first 8 bytes of the
fingerprint of each thing of those names at one step. For generators there is a frame at every step
whose row digests others than the row before, so that it is known which a row stands for.
"""

from __future__ import annotations

import itertools
import json
import struct
from bisect import bisect_right
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from manifest.streams import WORD_SIZE

SHARED: Final = "rng"
"""Where the fingerprints of generators are kept that the whole program shares."""
OWN: Final = "own"
"""And of those that are its own."""

_LEAF_SIZE = WORD_SIZE
_MOST_TABLES = 256

# Kind, table, bytes of payload, step.
_FRAME = struct.Struct("<cxHIQ")
_NAMES, _LEAVES = b"N", b"L"


class LeafWriter:
    """Makes frames, and knows which names it has written."""

    def __init__(self) -> None:
        self._tables: dict[tuple[str, tuple[str, ...]], int] = {}

    def frames(
        self, step: int, stream: str, names: tuple[str, ...], digests: Sequence[bytes]
    ) -> bytes:
        """What is to be written; nothing if there are too many sets of names already."""
        table = self._tables.get((stream, names))
        start = b""
        if table is None:
            if len(self._tables) >= _MOST_TABLES:
                return b""
            table = self._tables[stream, names] = len(self._tables)
            payload = json.dumps({"stream": stream, "names": names}).encode() + b"\n"
            start = _FRAME.pack(_NAMES, table, len(payload), 0) + payload
        payload = b"".join([digest[:_LEAF_SIZE] for digest in digests])
        return start + _FRAME.pack(_LEAVES, table, len(payload), step) + payload


class Leaves:
    """Reads frames; a torn end is left out."""

    def __init__(self, frames: bytes) -> None:
        self._frames = frames
        self._index = _index(frames)

    def at(self, step: int, stream: str) -> dict[str, bytes] | None:
        """The fingerprint of each thing by name, or None where they were not kept."""
        found = self._index.get(stream, {}).get(step)
        if found is None:
            return None
        names, offset = found
        starts = range(offset, offset + len(names) * _LEAF_SIZE, _LEAF_SIZE)
        return {
            name: self._frames[start : start + _LEAF_SIZE]
            for name, start in zip(names, starts, strict=True)
        }

    def steps(self, stream: str) -> list[int]:
        """The steps at which they were kept, in order."""
        return sorted(self._index.get(stream, {}))

    def names(self, stream: str) -> list[tuple[int, AbstractSet[str]]]:
        """Which things the rows digest: their names, each with the step from which it is so."""
        found: list[tuple[int, AbstractSet[str]]] = []
        for step, (names, _) in sorted(self._index.get(stream, {}).items()):
            if not found or found[-1][1] != frozenset(names):
                found.append((step, frozenset(names)))
        return found


def same_names(before: Leaves, after: Leaves, stream: str, steps: int) -> list[range]:
    """The steps, of the first so many, at which the rows of both digest the same things."""
    there, here = before.names(stream), after.names(stream)
    bounds = sorted({0, steps} | {step for step, _ in (*there, *here) if step < steps})
    return [
        range(start, stop)
        for start, stop in itertools.pairwise(bounds)
        if _names_at(there, start) == _names_at(here, start)
    ]


def _names_at(sets: list[tuple[int, AbstractSet[str]]], step: int) -> AbstractSet[str] | None:
    place = bisect_right(sets, step, key=lambda each: each[0])
    return sets[place - 1][1] if place else None


def _index(frames: bytes) -> dict[str, dict[int, tuple[tuple[str, ...], int]]]:
    tables: dict[int, tuple[str, tuple[str, ...]]] = {}
    index: dict[str, dict[int, tuple[tuple[str, ...], int]]] = {}
    offset = 0
    while offset + _FRAME.size <= len(frames):
        kind, table, size, step = _FRAME.unpack_from(frames, offset)
        begin, offset = offset + _FRAME.size, offset + _FRAME.size + size
        if offset > len(frames):
            break
        if kind == _NAMES:
            content = json.loads(frames[begin:offset])
            tables[table] = (content["stream"], tuple(content["names"]))
        elif kind == _LEAVES and table in tables:
            stream, names = tables[table]
            if len(names) * _LEAF_SIZE == size:
                index.setdefault(stream, {})[step] = (names, begin)
    return index
