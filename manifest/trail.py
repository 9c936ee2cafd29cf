"""The trail: what the bits of a training process were, step by step.

A process has up to three files, all append-only, so that a kill at any instant leaves a prefix:

``<process>.bin``
    One line of JSON, then 80 bytes a step: 16 for each of `STREAMS`, zero where nothing was
    observed. The number of a row is the number of its step.
``<process>.tensors``
    Frames with the names of tensors, and the first 8 bytes of the fingerprint of each, at some
    steps; with them the first *tensor* that differs is found.
``<process>.final``
    What was left at the end of the process, in JSON.

Which steps are digested depends on the step and the size of the parameters alone, so that two runs
of one program keep the same ones.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from manifest.errors import DamagedRun, NewerSchema

SCHEMA: Final = 1
ALGORITHM: Final = "xxh3-128+ml32x2"
"""How fingerprints are made, in host memory and on an accelerator; only equal ones compare."""

STREAMS: Final = ("rng", "batch", "loss", "grad", "param")
DIGEST_SIZE: Final = 16
ROW_SIZE: Final = DIGEST_SIZE * len(STREAMS)
UNOBSERVED: Final = bytes(DIGEST_SIZE)
LEAF_SIZE: Final = 8

_DENSE_STEPS = 64
_SAMPLES_PER_OCTAVE = 32
_LARGE_BYTES = 64 * 2**20
_BYTES_PER_STEP = 32 * 2**20
_FIRST_STEPS_OF_LARGE = 16
_MOST_TABLES = 256
_ROW_WORDS = ROW_SIZE // 8

# Kind, table, bytes of payload, step.
_FRAME = struct.Struct("<cxHIQ")
_NAMES, _LEAVES = b"N", b"L"

Buffer: TypeAlias = bytes | mmap.mmap


def digest_period(parameter_bytes: int) -> int:
    """Every how many steps parameters of this size are digested in full."""
    if parameter_bytes <= _LARGE_BYTES:
        return 1
    return -(-parameter_bytes // _BYTES_PER_STEP)


def is_digested(step: int, period: int) -> bool:
    """Whether gradients and parameters are digested at this step."""
    return step % period == 0 or step < _FIRST_STEPS_OF_LARGE


def keeps_leaves(step: int, period: int) -> bool:
    """Whether the fingerprint of every tensor is kept at this step, which is digested."""
    if period > 1:
        return step < _FIRST_STEPS_OF_LARGE or _is_sampled(step // period)
    return _is_sampled(step)


def _is_sampled(count: int) -> bool:
    return count < _DENSE_STEPS or count % (_octave_start(count) // _SAMPLES_PER_OCTAVE) == 0


def _octave_start(count: int) -> int:
    return 1 << (count.bit_length() - 1)


@dataclass(frozen=True)
class Ending:
    """What was left at the end of a process, each by name, as hexadecimal digests."""

    rng: Mapping[str, str] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)
    left: Mapping[str, str] = field(default_factory=dict)
    """Batches and losses that came after the last step, by stream."""


class TrailWriter:
    """Writes the trail of this process; what cannot be written is remembered, never raised."""

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        self.steps = 0
        self.failure: OSError | None = None
        self._tables: dict[tuple[str, tuple[str, ...]], int] = {}
        self._tensors_fd = -1
        self._fd = self._open(self.path)
        header = {"schema": SCHEMA, "algorithm": ALGORITHM, "streams": STREAMS, "row": ROW_SIZE}
        self._write(self._fd, json.dumps(header).encode() + b"\n")

    def append(self, rng: bytes, batch: bytes, loss: bytes, grad: bytes, param: bytes) -> None:
        """Add the row of the next step, in one write."""
        self.steps += 1
        self._write(self._fd, rng + batch + loss + grad + param)

    def append_leaves(
        self, step: int, stream: str, names: tuple[str, ...], digests: Sequence[bytes]
    ) -> None:
        """Keep the fingerprint of every tensor of a stream at a step."""
        table = self._table(stream, names)
        if table is None:
            return
        payload = b"".join([digest[:LEAF_SIZE] for digest in digests])
        self._write(self._tensors_fd, _FRAME.pack(_LEAVES, table, len(payload), step) + payload)

    def close(self, final: Ending | None = None) -> None:
        """End the trail, with what was left at the end of the process."""
        if final is not None:
            document = {
                "schema": SCHEMA,
                "steps": self.steps,
                "rng": dict(final.rng),
                "tensors": dict(final.tensors),
                "left": dict(final.left),
            }
            fd = self._open(_beside(self.path, ".final"))
            self._write(fd, json.dumps(document).encode())
            self._close(fd)
        self._close(self._fd)
        self._close(self._tensors_fd)
        self._fd = self._tensors_fd = -1

    def forget(self) -> None:
        """Let go of the files without writing, in a forked child to which they do not belong."""
        self._close(self._fd)
        self._close(self._tensors_fd)
        self._fd = self._tensors_fd = -1

    def _table(self, stream: str, names: tuple[str, ...]) -> int | None:
        table = self._tables.get((stream, names))
        if table is not None:
            return table
        if len(self._tables) >= _MOST_TABLES:
            return None
        if self._tensors_fd < 0:
            self._tensors_fd = self._open(_beside(self.path, ".tensors"))
        table = self._tables[stream, names] = len(self._tables)
        payload = json.dumps({"stream": stream, "names": names}).encode() + b"\n"
        self._write(self._tensors_fd, _FRAME.pack(_NAMES, table, len(payload), 0) + payload)
        return table

    def _open(self, path: str) -> int:
        if self.failure is not None:
            return -1
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.open(path, flags, 0o666)
        except OSError as error:
            self.failure = error
            return -1

    def _write(self, fd: int, data: bytes) -> None:
        # After a failure nothing more is written: a row after a torn row could not be found.
        if self.failure is not None or fd < 0:
            return
        try:
            written = os.write(fd, data)
            if written != len(data):
                self.failure = OSError(f"{written} of {len(data)} bytes could be written")
        except OSError as error:
            self.failure = error

    def _close(self, fd: int) -> None:
        if fd < 0:
            return
        try:
            os.close(fd)
        except OSError as error:
            self.failure = self.failure or error


class Trail:
    """Reads the trail of one process; a torn end is left out.

    Example:
        >>> trail = Trail.open(Path(".manifest/runs/0199…/trail/main.bin"))  # doctest: +SKIP
        >>> trail.digest(0, "param").hex()  # doctest: +SKIP
        '6b8a5f0c4d1e2f3a4b5c6d7e8f901234'
    """

    def __init__(
        self,
        *,
        algorithm: str,
        data: Buffer,
        offset: int,
        frames: bytes = b"",
        final: Ending | None = None,
    ) -> None:
        self.algorithm = algorithm
        self.final = final
        self.steps = max(0, len(data) - offset) // ROW_SIZE
        self._data = data
        self._offset = offset
        self._frames = frames
        self._leaves: dict[str, dict[int, tuple[tuple[str, ...], int]]] | None = None

    @classmethod
    def open(cls, path: Path | str) -> Trail:
        """Open the trail whose rows are in `path`, which is mapped, not read.

        Raises:
            NewerSchema: A newer Manifest wrote it.
            DamagedRun: Its first line is not that of a trail.
        """
        data = _mapped(path)
        end = data.find(b"\n")
        if end < 0:
            return cls(algorithm=ALGORITHM, data=b"", offset=0)
        algorithm = _algorithm(bytes(data[:end]), str(path))
        frames = _contents(_beside(str(path), ".tensors"))
        final = _final(_contents(_beside(str(path), ".final")))
        return cls(algorithm=algorithm, data=data, offset=end + 1, frames=frames, final=final)

    def rows(self, start: int, stop: int) -> bytes:
        """The bytes of the rows from `start` to before `stop`."""
        begin = self._offset + start * ROW_SIZE
        return bytes(self._data[begin : self._offset + min(stop, self.steps) * ROW_SIZE])

    def digest(self, step: int, stream: str) -> bytes | None:
        """The fingerprint of a stream at a step, or None where it was not observed."""
        if not 0 <= step < self.steps:
            raise IndexError(f"expected a step from 0 to {self.steps - 1}, found {step}")
        begin = self._offset + step * ROW_SIZE + STREAMS.index(stream) * DIGEST_SIZE
        found = bytes(self._data[begin : begin + DIGEST_SIZE])
        return None if found == UNOBSERVED else found

    def streams(self) -> tuple[str, ...]:
        """The streams with at least one fingerprint."""
        missing = set(STREAMS)
        for start in range(0, self.steps, 4096):
            rows = self.rows(start, start + 4096)
            missing = {stream for stream in missing if not column(rows, stream).strip(b"\0")}
            if not missing:
                break
        return tuple(stream for stream in STREAMS if stream not in missing)

    def leaves(self, step: int, stream: str) -> dict[str, bytes] | None:
        """The fingerprint of each tensor by name, or None where they were not kept."""
        found = self._index().get(stream, {}).get(step)
        if found is None:
            return None
        names, offset = found
        starts = range(offset, offset + len(names) * LEAF_SIZE, LEAF_SIZE)
        return {
            name: self._frames[start : start + LEAF_SIZE]
            for name, start in zip(names, starts, strict=True)
        }

    def leaf_steps(self, stream: str) -> list[int]:
        """The steps at which the fingerprint of each tensor was kept, in order."""
        return sorted(self._index().get(stream, {}))

    def _index(self) -> dict[str, dict[int, tuple[tuple[str, ...], int]]]:
        if self._leaves is None:
            self._leaves = _leaf_index(self._frames)
        return self._leaves


def summarize(path: Path | str) -> dict[str, Any] | None:
    """What a trail holds, in the form of `models.TrailSummary`; None if it cannot be read."""
    try:
        trail = Trail.open(path)
    except (DamagedRun, NewerSchema, OSError):
        return None
    streams = list(trail.streams())
    return {"steps": trail.steps, "streams": streams, "algorithm": trail.algorithm}


def column(rows: bytes, stream: str) -> bytes:
    """The digests of one stream out of whole rows: all first halves, then all second halves."""
    words = memoryview(rows).cast("Q")
    first = STREAMS.index(stream) * 2
    return words[first::_ROW_WORDS].tobytes() + words[first + 1 :: _ROW_WORDS].tobytes()


def _leaf_index(frames: bytes) -> dict[str, dict[int, tuple[tuple[str, ...], int]]]:
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
            if len(names) * LEAF_SIZE == size:
                index.setdefault(stream, {})[step] = (names, begin)
    return index


def _algorithm(line: bytes, where: str) -> str:
    try:
        header: dict[str, Any] = json.loads(line)
        schema, algorithm = int(header["schema"]), str(header["algorithm"])
    except (ValueError, KeyError, TypeError) as error:
        reason = f"expected the first line of a trail, found {line[:40]!r}"
        raise DamagedRun(where, reason) from error
    if schema > SCHEMA:
        raise NewerSchema(schema, SCHEMA, where)
    if header.get("row") != ROW_SIZE or tuple(header.get("streams", ())) != STREAMS:
        raise DamagedRun(where, f"expected rows of {ROW_SIZE} bytes with {STREAMS}, found {line!r}")
    return algorithm


def _final(content: bytes) -> Ending | None:
    try:
        document = json.loads(content)
        return Ending(document["rng"], document["tensors"], document["left"])
    except (ValueError, KeyError, TypeError):
        return None


def _mapped(path: Path | str) -> Buffer:
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _contents(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        return b""


def _beside(path: str, suffix: str) -> str:
    return path.removesuffix(".bin") + suffix
