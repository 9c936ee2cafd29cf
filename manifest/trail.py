"""The trail: what the bits of a training process were, step by step.

A process has up to seven files, all append-only, so that a kill at any instant leaves a prefix:

``<process>.bin``
    One line of JSON, then 80 bytes a step: 16 for each of `STREAMS`, zero where nothing was
    observed. The number of a row is the number of its step.
``<process>.tensors``
    The fingerprint of each tensor at some steps; with them the first *tensor* that differs is
    found. See `leaves`.
``<process>.segments``
    Digests over many rows at once; see `segments`.
``<process>.losses``, ``<process>.samples``
    Numbers instead of digests, for those who allow a tolerance; see `numbers`.
``<process>.ops``
    Operations, in a replay that is told to keep them; see `operations`.
``<process>.final``
    What was left at the end of the process, in JSON.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from manifest import numbers
from manifest.appending import AppendedFile
from manifest.errors import DamagedRun, NewerSchema
from manifest.leaves import LeafWriter, Leaves
from manifest.numbers import LossWriter, Sample
from manifest.operations import Operations, operations
from manifest.segments import SEGMENT_STEPS, Segments, SegmentWriter, digests, segment_digests
from manifest.streams import DIGEST_SIZE, ROW_SIZE, STREAMS, UNOBSERVED, words

SCHEMA: Final = 1
ALGORITHM: Final = "xxh3-128+ml32x2"
"""How fingerprints are made, in host memory and on an accelerator; only equal ones compare."""

_GATHERED_STEPS = 64  # of which `SEGMENT_STEPS` are a multiple
_HALVES = ["shared", "own"]


class Buffer(Protocol):
    """Bytes, read as they are asked for."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, part: slice, /) -> bytes:
        """A part of them."""
        ...


ReadBeside: TypeAlias = Callable[[str], bytes]
"""The content of the file with this suffix beside the rows; empty where there is none."""


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
        self._leaves = LeafWriter()
        self._segments = SegmentWriter()
        self._losses = LossWriter()
        self._rows: list[bytes] = []
        self._numbers: list[float | None] = []
        self._beside: dict[str, AppendedFile | None] = {}
        self._file = self._open(self.path)
        header = {
            "schema": SCHEMA,
            "algorithm": ALGORITHM,
            "streams": STREAMS,
            "row": ROW_SIZE,
            "rng": _HALVES,
        }
        line = json.dumps(header).encode() + b"\n"
        self._header_bytes = len(line)
        self._write(self._file, line)

    def append(
        self,
        rng: bytes,
        batch: bytes,
        loss: bytes,
        grad: bytes,
        param: bytes,
        *,
        number: float | None = None,
    ) -> None:
        """Add the row of the next step, in one write.

        Args:
            rng: Half a digest of the generators that the program shares, and half of its own.
            batch: A digest, like the others.
            loss: Of its bits.
            grad: Of all gradients.
            param: Of all parameters.
            number: The loss itself.
        """
        row = b"".join((rng, batch, loss, grad, param))
        self._write(self._file, row)
        self._rows.append(row)
        self._numbers.append(number)
        self.steps += 1
        if self.steps % _GATHERED_STEPS == 0 or self.steps < _GATHERED_STEPS:
            self._write_gathered()

    def append_leaves(
        self, step: int, stream: str, names: tuple[str, ...], digests: Sequence[bytes]
    ) -> bool:
        """Keep the fingerprint of every tensor of a stream at a step; whether it could be kept."""
        frames = self._leaves.frames(step, stream, names, digests)
        if frames:
            self._write_beside(".tensors", frames)
        return bool(frames)

    def _write_gathered(self) -> None:
        """Write what is made of several rows, which cannot be missed as a row would be."""
        losses = self._losses.add(self.steps - len(self._numbers), self._numbers)
        if losses:
            self._write_beside(".losses", losses)
        if nodes := self._segments.add(self._rows):
            self._write_beside(".segments", nodes)
        self._numbers.clear()
        self._rows.clear()

    def close(
        self, final: Ending | None = None, samples: Mapping[str, Sample] | None = None
    ) -> None:
        """End the trail, with what was left at the end of the process."""
        if final is not None:
            document = {
                "schema": SCHEMA,
                "steps": self.steps,
                "rng": dict(final.rng),
                "tensors": dict(final.tensors),
                "left": dict(final.left),
            }
            self._write_beside(".final", json.dumps(document).encode())
        if samples:
            self._write_beside(".samples", numbers.encoded(samples))
        self._write_gathered()
        self._seal()
        self.forget()

    def forget(self) -> None:
        """Let go of the files without writing, in a forked child to which they do not belong."""
        for file in (self._file, *self._beside.values()):
            self._close(file)
        self._file, self._beside = None, {}

    def _seal(self) -> None:
        if self._file is None or self.failure is not None:
            return
        try:
            seal = self._segments.end(self._file.status())
        except OSError as error:
            self.failure = error
            return
        if seal:
            self._write_beside(".segments", seal)

    def _write_beside(self, suffix: str, data: bytes) -> None:
        if suffix not in self._beside:
            if self._file is None:
                return
            self._beside[suffix] = self._open(beside(self.path, suffix))
        self._write(self._beside[suffix], data)

    def _open(self, path: str) -> AppendedFile | None:
        if self.failure is not None:
            return None
        try:
            return AppendedFile(path)
        except OSError as error:
            self.failure = error
            return None

    def _write(self, file: AppendedFile | None, data: bytes) -> None:
        # After a failure nothing more is written: a row after a torn row could not be found.
        if self.failure is not None or file is None:
            return
        try:
            written = file.write(data)
        except OSError as error:
            self._fail(error)
        else:
            if written != len(data):
                self._fail(OSError(f"{written} of {len(data)} bytes could be written"))

    def _fail(self, error: OSError) -> None:
        self.failure = error
        if self._file is None:
            return
        # The disk that refuses this may refuse a note in the journal, too. The torn beginning of a
        # row tells it as well, and has room: the header has no length with which rows fill blocks.
        try:
            if not (self._file.status().st_size - self._header_bytes) % ROW_SIZE:
                self._file.write(b"\0")
        except OSError:
            pass

    def _close(self, file: AppendedFile | None) -> None:
        if file is None:
            return
        try:
            file.close()
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
        beside: ReadBeside = lambda _: b"",
        find_segments: Callable[[int], Segments | None] = lambda _: None,
        has_own: bool = False,
    ) -> None:
        self.algorithm = algorithm
        self.steps = max(0, len(data) - offset) // ROW_SIZE
        self.has_own = has_own
        """Whether the second half of `rng` digests the program's own generators."""
        self._data = data
        self._offset = offset
        self._beside = beside
        self._find_segments = find_segments

    @classmethod
    def of_parts(
        cls, header: bytes, rows: Buffer, beside: ReadBeside, segments: Segments | None
    ) -> Trail:
        """A trail that is not kept in files.

        Args:
            header: The first line of its file of rows.
            rows: All rows, which are read as they are asked for.
            beside: What lies beside them.
            segments: The digests of its whole segments.

        Raises:
            NewerSchema: A newer Manifest wrote it.
            DamagedRun: The line is not that of a trail.
        """
        document = _header(header, "the header")
        return cls(
            algorithm=str(document["algorithm"]),
            data=rows,
            offset=0,
            beside=beside,
            find_segments=lambda _: segments,
            has_own=document.get("rng") == _HALVES,
        )

    @classmethod
    def open(cls, path: Path | str) -> Trail:
        """Open the trail whose rows are in `path`, which is mapped, not read.

        Raises:
            NewerSchema: A newer Manifest wrote it.
            DamagedRun: Its first line is not that of a trail.
        """
        data, status = _mapped(path)
        end = data.find(b"\n")
        if end < 0:
            return cls(algorithm=ALGORITHM, data=b"", offset=0)
        header = _header(bytes(data[:end]), str(path))

        def read(suffix: str) -> bytes:
            return _contents(beside(str(path), suffix))

        return cls(
            algorithm=str(header["algorithm"]),
            data=data,
            offset=end + 1,
            beside=read,
            find_segments=lambda steps: Segments.of_rows(status, read(".segments"), steps),
            has_own=header.get("rng") == _HALVES,
        )

    @cached_property
    def final(self) -> Ending | None:
        """What was left at the end of the process, if it came to that."""
        return _final(self._beside(".final"))

    @cached_property
    def segments(self) -> Segments | None:
        """Digests over many rows at once; None where they may not be those of the rows."""
        found = self._find_segments(self.steps)
        return found if found is not None and self.agrees(found, found.count - 1) else None

    def agrees(self, segments: Segments, segment: int) -> bool:
        """Whether the rows of a segment are those that were digested."""
        start = segment * SEGMENT_STEPS
        return segment_digests(self.rows(start, start + SEGMENT_STEPS)) == segments.node(segment, 0)

    @cached_property
    def operations(self) -> Operations:
        """The operations of steps that were recorded densely; see `operations`."""
        return operations(self._beside(".ops"))

    @cached_property
    def losses(self) -> Sequence[float]:
        """The loss of each step, as far as it was kept; see `numbers`."""
        return numbers.losses(self._beside(".losses"))

    @cached_property
    def samples(self) -> dict[str, Sample]:
        """Some elements of each parameter at the end of the process; see `numbers`."""
        return numbers.decoded(self._beside(".samples"))

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
        segments, start = self.segments, 0
        found: set[str] = set()
        if segments is not None:
            start = segments.count * SEGMENT_STEPS
            for node in segments.whole():
                found.update(digests(node))
        for begin in range(start, self.steps, 4096):
            missing = [stream for stream in STREAMS if stream not in found]
            if not missing:
                break
            rows = self.rows(begin, begin + 4096)
            found.update(s for s in missing if any(half.strip(b"\0") for half in words(rows, s)))
        return tuple(stream for stream in STREAMS if stream in found)

    @cached_property
    def leaves(self) -> Leaves:
        """The fingerprint of each tensor, at some steps."""
        return Leaves(self._beside(".tensors"))


def summarize(path: Path | str) -> dict[str, Any] | None:
    """What a trail holds, in the form of `models.TrailSummary`; None if it cannot be read."""
    try:
        trail = Trail.open(path)
    except (DamagedRun, NewerSchema, OSError):
        return None
    streams = list(trail.streams())
    return {"steps": trail.steps, "streams": streams, "algorithm": trail.algorithm}


def is_torn(path: Path | str) -> bool:
    """Whether a trail ends amid a row: it was cut, or could not be written to its end."""
    try:
        with open(path, "rb") as file:
            header = file.readline()
            return (os.fstat(file.fileno()).st_size - len(header)) % ROW_SIZE != 0
    except OSError:
        return False


def _header(line: bytes, where: str) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads(line)
        schema, _ = int(header["schema"]), str(header["algorithm"])
    except (ValueError, KeyError, TypeError) as error:
        reason = f"expected the first line of a trail, found {line[:40]!r}"
        raise DamagedRun(where, reason) from error
    if schema > SCHEMA:
        raise NewerSchema(schema, SCHEMA, where)
    if header.get("row") != ROW_SIZE or tuple(header.get("streams", ())) != STREAMS:
        raise DamagedRun(where, f"expected rows of {ROW_SIZE} bytes with {STREAMS}, found {line!r}")
    return header


def _final(content: bytes) -> Ending | None:
    try:
        document = json.loads(content)
        return Ending(document["rng"], document["tensors"], document["left"])
    except (ValueError, KeyError, TypeError):
        return None


def _mapped(path: Path | str) -> tuple[bytes | mmap.mmap, os.stat_result]:
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_size == 0:
            return b"", status
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), status


def _contents(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        return b""


def beside(path: str, suffix: str) -> str:
    """Another file of the same process."""
    return path.removesuffix(".bin") + suffix
