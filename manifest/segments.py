"""Segments: digests over many rows at once, so that two trails compare in few look-ups.

``<process>.segments`` holds a binary tree over segments of 1024 rows, each node behind its two
children, so that it is only ever appended to. A node has one digest for each stream, zero where
the stream was observed nowhere below, and odd where it was observed at every step. Where nodes are
equal, so are the rows below; where they differ, or one is zero, the rows say what that means.

At its end stand the size and the time of change of the file of rows. Rows that were touched since,
or copied without their time, are read themselves.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from manifest.streams import DIGEST_SIZE, ROW_SIZE, STREAMS, UNOBSERVED, WORD_SIZE, words

SEGMENT_STEPS: Final = 1024

_HEADER = b"manifest segments 1\n"
_SEGMENT_BYTES = SEGMENT_STEPS * ROW_SIZE
_NODE_SIZE = ROW_SIZE
_NOTHING = bytes(WORD_SIZE)
_SEAL = struct.Struct("<QQ")  # of the rows: bytes, nanoseconds of the last change


class SegmentWriter:
    """Grows the tree as rows are written."""

    def __init__(self) -> None:
        self._rows = bytearray()
        self._tree = _Tree()

    def add(self, rows: Iterable[bytes]) -> bytes:
        """What rows add to the file, which may end a segment but not begin one: mostly nothing."""
        self._rows += b"".join(rows)
        if len(self._rows) < _SEGMENT_BYTES:
            return b""
        header = b"" if self._tree.count else _HEADER
        node = segment_digests(bytes(self._rows))
        self._rows.clear()
        return header + self._tree.add(node)

    def end(self, rows: os.stat_result) -> bytes:
        """What ends the file, once all rows are written; nothing if there is no segment.

        Args:
            rows: Of the file of rows, as it is now.
        """
        if not self._tree.count:
            return b""
        return _SEAL.pack(rows.st_size, rows.st_mtime_ns)


class Segments:
    """Reads the tree over the rows of one trail."""

    def __init__(self, nodes: bytes, count: int) -> None:
        self.count = count
        """How many segments it covers."""
        self._nodes = nodes

    @classmethod
    def of_rows(cls, rows: os.stat_result, content: bytes, steps: int) -> Segments | None:
        """The tree, or None if it is not whole or the rows were changed since.

        Args:
            rows: Of the file of rows, as it is now.
            content: Of the file of segments.
            steps: How many rows there are.
        """
        count = steps // SEGMENT_STEPS
        size = _nodes_over(count) * _NODE_SIZE
        if not count or len(content) != len(_HEADER) + size + _SEAL.size:
            return None
        sealed = _SEAL.pack(rows.st_size, rows.st_mtime_ns)
        if not content.startswith(_HEADER) or not content.endswith(sealed):
            return None
        return cls(content[len(_HEADER) : -_SEAL.size], count)

    @classmethod
    def over(cls, nodes: Iterable[bytes]) -> Segments | None:
        """The tree over segments whose digests are known; None if there is no segment."""
        tree = _Tree()
        content = b"".join(map(tree.add, nodes))
        return cls(content, tree.count) if tree.count else None

    def node(self, start: int, height: int) -> bytes:
        """The digests over 2**height segments from `start`, which is a multiple of as many."""
        stop = start + (1 << height)
        below = (stop & -stop).bit_length() - 1
        offset = (_nodes_over(stop) - 1 - (below - height)) * _NODE_SIZE
        return self._nodes[offset : offset + _NODE_SIZE]

    def observed(self) -> frozenset[str]:
        """The streams that were observed at any step that it covers."""
        return frozenset(stream for node in self.whole() for stream in digests(node))

    def complete(self) -> frozenset[str]:
        """The streams that were observed at every step that it covers."""
        nodes = list(self.whole())
        return frozenset(
            stream
            for index, stream in enumerate(STREAMS)
            if all(
                is_complete(node[index * DIGEST_SIZE : (index + 1) * DIGEST_SIZE]) for node in nodes
            )
        )

    def whole(self) -> Iterator[bytes]:
        """The nodes that cover everything once."""
        for start, height in _subtrees_of(self.count):
            yield self.node(start, height)


class _Tree:
    """Grows from its leaves; each node stands behind its two children."""

    def __init__(self) -> None:
        self.count = 0
        self._subtrees: list[bytes] = []

    def add(self, node: bytes) -> bytes:
        """The node of one more segment, and those above it that are complete now."""
        added = [node]
        self.count += 1
        complete = self.count
        while complete % 2 == 0:
            node = _parent(self._subtrees.pop(), node)
            added.append(node)
            complete //= 2
        self._subtrees.append(node)
        return b"".join(added)


def unlike(before: Segments, after: Segments) -> Iterator[int]:
    """The segments whose rows may differ in something that both sides observed, in order."""
    for start, height in _subtrees_of(min(before.count, after.count)):
        yield from _unlike_below(before, after, start, height)


def segment_digests(rows: bytes) -> bytes:
    """The node over the rows of one segment."""
    return b"".join(_cell(*words(rows, stream)) for stream in STREAMS)


def is_complete(cell: bytes) -> bool:
    """Whether a stream was observed at every step that a node covers."""
    return bool(cell[-1] & 1)


def _digest(data: bytes) -> bytes:
    # Only where PyTorch trains: an environment that lacks this package is recorded all the same.
    from xxhash import xxh3_128_digest

    return xxh3_128_digest(data)


def _cell(first: bytes, second: bytes) -> bytes:
    column = first + second
    if not column.strip(b"\0"):
        return UNOBSERVED
    has_gap = _NOTHING in first and 0 in memoryview(first).cast("Q").tolist()
    return _marked(_digest(column), is_complete=not has_gap)


def _marked(digest: bytes, *, is_complete: bool) -> bytes:
    # One bit less of the digest tells nothing that anybody would miss.
    return digest[:-1] + bytes([digest[-1] | 1 if is_complete else digest[-1] & 0xFE])


def digests(node: bytes) -> dict[str, bytes]:
    """The digest of each stream that was observed."""
    cells = {
        stream: node[index * DIGEST_SIZE : (index + 1) * DIGEST_SIZE]
        for index, stream in enumerate(STREAMS)
    }
    return {stream: cell for stream, cell in cells.items() if cell != UNOBSERVED}


def _unlike_below(before: Segments, after: Segments, start: int, height: int) -> Iterator[int]:
    a, b = before.node(start, height), after.node(start, height)
    if a == b:
        return
    there, here = digests(a), digests(b)
    if all(there[stream] == here[stream] for stream in there.keys() & here.keys()):
        return
    if height == 0:
        yield start
        return
    yield from _unlike_below(before, after, start, height - 1)
    yield from _unlike_below(before, after, start + (1 << height - 1), height - 1)


def _parent(left: bytes, right: bytes) -> bytes:
    cells = range(0, _NODE_SIZE, DIGEST_SIZE)
    pairs = [(left[cell : cell + DIGEST_SIZE], right[cell : cell + DIGEST_SIZE]) for cell in cells]
    return b"".join(
        UNOBSERVED
        if pair == (UNOBSERVED, UNOBSERVED)
        else _marked(_digest(b"".join(pair)), is_complete=all(map(is_complete, pair)))
        for pair in pairs
    )


def _subtrees_of(count: int) -> Iterator[tuple[int, int]]:
    """The start and height of each whole subtree over `count` segments, the largest first."""
    start = 0
    for height in reversed(range(count.bit_length())):
        if count >> height & 1:
            yield start, height
            start += 1 << height


def _nodes_over(count: int) -> int:
    return 2 * count - count.bit_count()
