"""Shared libraries of numerics that the process has really loaded, by the identity of each file.

A path or a preload can bring in another BLAS, OpenMP or cuDNN than the installed one.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from manifest.canonical import Json, plain

_NUMERICS = re.compile(
    "blas|lapack|mkl|omp|dnn|cuda|cublas|curand|cusolver|cusparse|cufft|nccl|torch|c10|hip|miopen"
    "|rocm|tbb|malloc|^libm[.-]"
)
_NOTES = 4
_BUILD_ID = 3
_MOST_HEADER_BYTES = 2**16


def capture_libraries(maps: str = "/proc/self/maps") -> dict[str, Json]:
    """The build id of each library of numerics, by its name; where it has none, its size."""
    found: dict[str, set[str]] = {}
    for path in _mapped(maps):
        found.setdefault(os.path.basename(path), set()).add(_identity(path))
    told = {name: ", ".join(sorted(found[name])) for name in sorted(found)}
    return {"process.libraries": plain(told)}


def _mapped(maps: str) -> set[str]:
    lines = Path(maps).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    paths = {line[line.index("/") :].removesuffix(" (deleted)") for line in lines if "/" in line}
    return {
        path
        for path in paths
        if ".so" in os.path.basename(path) and _NUMERICS.search(os.path.basename(path))
    }


def _identity(path: str) -> str:
    try:
        with open(path, "rb") as file:
            build_id = _build_id(file.read(_MOST_HEADER_BYTES))
            return f"build {build_id}" if build_id else f"{os.fstat(file.fileno()).st_size} bytes"
    except OSError as error:
        return f"not readable: {error.strerror}"


def _build_id(start: bytes) -> str | None:
    """What a linker wrote to tell builds apart, if it is among the first bytes of the file."""
    if start[:6] != b"\x7fELF\x02\x01":
        return None
    try:
        return next(_build_ids(start), None)
    except (struct.error, OverflowError):
        return None


def _build_ids(start: bytes) -> Iterator[str]:
    (table,) = struct.unpack_from("<Q", start, 32)
    entry_size, count = struct.unpack_from("<HH", start, 54)
    for number in range(count):
        kind, _, offset, _, _, size = struct.unpack_from(
            "<IIQQQQ", start, table + number * entry_size
        )
        end = min(offset + size, len(start))
        while kind == _NOTES and offset + 12 <= end:
            name_size, size, note = struct.unpack_from("<III", start, offset)
            content = offset + 12 + -(-name_size // 4) * 4
            if note == _BUILD_ID and start[offset + 12 : content] == b"GNU\0":
                yield start[content : content + size].hex()
            offset = content + -(-size // 4) * 4
