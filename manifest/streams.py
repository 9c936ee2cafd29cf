"""The row of a step: which streams are fingerprinted, and where their digests stand in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

STREAMS: Final = ("rng", "batch", "loss", "grad", "param")
DIGEST_SIZE: Final = 16
ROW_SIZE: Final = DIGEST_SIZE * len(STREAMS)
UNOBSERVED: Final = bytes(DIGEST_SIZE)
WORD_SIZE: Final = DIGEST_SIZE // 2

_ROW_WORDS = ROW_SIZE // WORD_SIZE


def words(rows: bytes, stream: str) -> tuple[bytes, bytes]:
    """The digests of one stream out of whole rows: all first halves, and all second halves.

    In the stream ``rng`` the first half digests the generators that the whole program shares, the
    second those of its own; in the other streams both are of one digest.
    """
    view = memoryview(rows).cast("Q")
    first = STREAMS.index(stream) * 2
    return view[first::_ROW_WORDS].tobytes(), view[first + 1 :: _ROW_WORDS].tobytes()


def unequal_words(before: bytes, after: bytes) -> Iterator[int]:
    """Where two columns of halves differ that both sides observed, in order."""
    if before == after or not before.strip(b"\0") or not after.strip(b"\0"):
        return
    for start in range(0, len(before), _BLOCK):
        stop = start + _BLOCK
        if before[start:stop] == after[start:stop]:
            continue
        for place in range(start, min(stop, len(before)), WORD_SIZE):
            a, b = before[place : place + WORD_SIZE], after[place : place + WORD_SIZE]
            if a != b and _NOTHING not in (a, b):
                yield place // WORD_SIZE


_BLOCK = 256 * WORD_SIZE
_NOTHING = bytes(WORD_SIZE)
