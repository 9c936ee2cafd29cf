"""Rows of a trail as they are kept: without the columns in which nothing was observed."""

from __future__ import annotations

import struct
from typing import Final

from manifest.streams import ROW_SIZE, WORD_SIZE

# Of halves of digests; most programs leave out one of `rng`.
_COLUMNS: Final = ROW_SIZE // WORD_SIZE
# Which columns are there, and of how many rows. Plain rows are as long as some words, these never.
_HEAD: Final = struct.Struct("<HH")


def packed(rows: bytes) -> bytes:
    """Leave out the columns that hold nothing; where all hold something, rows stay as they are."""
    view = memoryview(rows).cast("Q")
    if all(view[:_COLUMNS]):  # the first row has it all
        return rows
    columns = [view[place::_COLUMNS].tobytes() for place in range(_COLUMNS)]
    nothing = bytes(len(rows) // _COLUMNS)
    held = [place for place, column in enumerate(columns) if column != nothing]
    if len(held) == _COLUMNS:
        return rows
    head = _HEAD.pack(sum(1 << place for place in held), len(rows) // ROW_SIZE)
    return head + b"".join(columns[place] for place in held)


def unpacked(body: bytes) -> bytes:
    """The rows again, byte for byte."""
    if _is_plain(len(body)):
        return body
    mask, count = _HEAD.unpack_from(body)
    rows = bytearray(count * ROW_SIZE)
    view = memoryview(rows).cast("Q")
    columns = memoryview(body)[_HEAD.size :].cast("Q")
    held = [place for place in range(_COLUMNS) if mask >> place & 1]
    for ordinal, place in enumerate(held):
        view[place::_COLUMNS] = columns[ordinal * count : (ordinal + 1) * count]
    return bytes(rows)


def size_of(length: int, start: bytes) -> int:
    """How many bytes the rows have of which so many are kept, and which are kept from here on."""
    return length if _is_plain(length) else _HEAD.unpack_from(start)[1] * ROW_SIZE


def _is_plain(length: int) -> bool:
    return length % WORD_SIZE == 0


HEAD_SIZE: Final = _HEAD.size
"""How much of what is kept `size_of` looks at."""
