"""Shared libraries that compute, as they are really mapped into the process: file and build."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator

from manifest.canonical import Json, attempted

_COMPUTING = re.compile(
    r"lib((?:scipy_)?openblas\w*|mkl_\w+|blis\w*|lapack\w*|blas|cblas|dnnl|tbb|gomp|iomp5|omp"
    r"|cuda|cudart|cublas\w*|cudnn\w*|cufft|curand|cusolver|cusparse\w*|nccl|nvrtc"
    r"|amdhip64|hsa-runtime64|rocblas|hipblas\w*|rocsolver|MIOpen|rccl|sycl|ze_loader)[-.].*"
)
_RUNTIME = "cudart"
_START_BYTES = 65_536
_ELF = b"\x7fELF\x02\x01"  # of 64 bits, little-endian
_TABLE = struct.Struct("<32xQ14xHH")  # of program headers: where, how large is one, how many
_PROGRAM = struct.Struct("<I4xQ16xQ")  # kind, where in the file, how large
_NOTE = struct.Struct("<III")  # length of the name, of the content, and the kind
_IS_NOTE, _IS_BUILD_ID = 4, 3


def capture_mapped() -> dict[str, Json]:
    """Describe each library that computes; reads the start of its file, and runs none of it.

    Returns:
        ``lib.NAME`` with ``file``, links followed, and ``build``, its identity where it carries
        one, for each file of that name; ``cuda.runtime`` where that library is mapped.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(set(mapped_files())):
        matched = _COMPUTING.fullmatch(os.path.basename(path))
        if matched is not None:
            found.setdefault(matched[1], []).append(path)
    captured: dict[str, Json] = {
        f"lib.{name}": [_described(path) for path in paths] for name, paths in found.items()
    }
    if _RUNTIME in found:
        captured["cuda.runtime"] = attempted(lambda: _runtime_version(found[_RUNTIME][0]))
    return captured


def is_computing(name: str) -> bool:
    """Whether a file of this name is a library that is described."""
    return _COMPUTING.fullmatch(name) is not None


def mapped_files() -> Iterator[str]:
    """The files that are mapped into this process, one for each part of one."""
    with open("/proc/self/maps", "rb") as file:
        for line in file:
            fields = line.split(None, 5)
            if len(fields) == 6 and fields[5].startswith(b"/"):
                yield os.fsdecode(fields[5].rstrip(b"\n"))


def _described(path: str) -> Json:
    return {"file": os.path.basename(path), "build": attempted(lambda: _build(path))}


def _build(path: str) -> str:
    with open(path, "rb") as file:
        start = file.read(_START_BYTES)
        size = os.fstat(file.fileno()).st_size
        for offset, length in _notes(start):
            file.seek(offset)
            if (build_id := _build_id(file.read(min(length, _START_BYTES)))) is not None:
                return build_id
    return f"{size} bytes"


def _notes(start: bytes) -> Iterator[tuple[int, int]]:
    if not start.startswith(_ELF):
        return
    table, size, count = _TABLE.unpack_from(start)
    for at in range(table, table + size * count, size or 1):
        if at + _PROGRAM.size > len(start):
            return
        kind, offset, length = _PROGRAM.unpack_from(start, at)
        if kind == _IS_NOTE:
            yield offset, length


def _build_id(notes: bytes) -> str | None:
    at = 0
    while at + _NOTE.size <= len(notes):
        name_length, length, kind = _NOTE.unpack_from(notes, at)
        name = at + _NOTE.size
        content = name + (name_length + 3) // 4 * 4
        if kind == _IS_BUILD_ID and notes[name : name + name_length] == b"GNU\0":
            return notes[content : content + length].hex()
        at = content + (length + 3) // 4 * 4
    return None


def _runtime_version(path: str) -> str:
    import ctypes

    # A number that is built in; asking for it starts no device.
    library, number = ctypes.CDLL(path, mode=os.RTLD_NOLOAD), ctypes.c_int()
    answer = library.cudaRuntimeGetVersion(ctypes.byref(number))
    if answer:
        raise OSError(f"cudaRuntimeGetVersion: answer {answer}")
    return f"{number.value // 1000}.{number.value % 1000 // 10}"
