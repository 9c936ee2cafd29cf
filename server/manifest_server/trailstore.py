"""The trails of a store: rows in and out, and where two runs went apart."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from sqlalchemy import Engine

from manifest.comparing import compare_trails
from manifest.errors import BlobNotFound, DamagedRun, TrailInvalid, TrailNotFound
from manifest.models import KeptTrail, TrailComparison
from manifest.trail import ROW_SIZE, Trail
from manifest_server import trails as queries
from manifest_server.blobstore import Blobs
from manifest_server.database import reading, transaction
from manifest_server.trails import SEGMENT_STEPS

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~-]{0,127}")
_SUFFIX: Final = re.compile(r"(?!bin$)[a-z]{1,20}")
_LONGEST_HEADER: Final = 4096
_AT_ONCE: Final = 16  # segments that are held in memory
_UNREAD: Final = frozenset({"segments"})  # it vouches for one file of rows, and a copy is another


class Trails:
    """Keeps trails; a part of `SqlStore`."""

    def __init__(self, engine: Engine, blobs: Blobs) -> None:
        self._engine = engine
        self._blobs = blobs

    def put_rows(self, run_id: str, process: str, body: bytes, *, start: int) -> int:
        """Keep rows of a trail, any number of times; gives how many steps are kept now.

        Args:
            run_id: The run.
            process: Whose trail it is.
            body: Whole rows; from step 0 on, with the first line of the file before them.
            start: The step of the first row, a multiple of 1024.

        Raises:
            RunNotFound: No run has this id.
            TrailInvalid: These are no rows.
            NewerSchema: A newer Manifest wrote them.
            TrailNotFound: The trail has not begun.
            TrailGap: Steps before these are not kept.
            TrailDiffers: Other rows are kept for these steps.
        """
        if not _NAME.fullmatch(process):
            raise TrailInvalid(f"a process of a run is not called {process[:80]!r}")
        header = _header(process, body) if start == 0 else b""
        found = queries.cut(body[len(header) :])
        with transaction(self._engine, is_writing=True) as connection:
            if header:
                queries.put_header(connection, run_id, process, header)
            return queries.put_segments(connection, run_id, process, found, start=start)

    def put_known(
        self,
        run_id: str,
        process: str,
        keys: Sequence[str],
        *,
        start: int,
        project: str | None = None,
    ) -> int:
        """Add segments that are kept already, of any trail of the project.

        Raises:
            SegmentsLacking: Not all of them are.
            TrailNotFound: The trail has not begun.
            TrailGap: Steps before these are not kept.
            TrailDiffers: Other rows are kept for these steps.
        """
        with transaction(self._engine, is_writing=True) as connection:
            return queries.put_known_segments(
                connection, run_id, process, keys, start=start, project=project
            )

    def put_file(self, run_id: str, process: str, suffix: str, digest: str) -> None:
        """Say which blob lies beside the rows, in place of the one before.

        Raises:
            TrailInvalid: Nothing of that name lies there.
            TrailNotFound: There is no such trail.
        """
        if not _SUFFIX.fullmatch(suffix):
            raise TrailInvalid(f"nothing beside a trail is called {suffix[:80]!r}")
        with transaction(self._engine, is_writing=True) as connection:
            queries.put_file(connection, run_id, process, suffix, digest)

    def lacking(self, keys: Collection[str], *, project: str | None = None) -> list[str]:
        """Those segments whose rows must be sent."""
        with reading(self._engine) as connection:
            return queries.lacking_segments(connection, keys, project=project)

    def list(self, run_id: str) -> list[KeptTrail]:
        """The trails of a run, by process."""
        with reading(self._engine) as connection:
            return queries.list_trails(connection, run_id)

    def find(self, run_id: str, process: str) -> KeptTrail:
        """The trail of one process.

        Raises:
            TrailNotFound: There is none.
        """
        for trail in self.list(run_id):
            if trail.process == process:
                return trail
        raise TrailNotFound(run_id, process)

    def header(self, run_id: str, process: str) -> bytes:
        """The first line of the file that the rows came from.

        Raises:
            TrailNotFound: There is no such trail.
        """
        with reading(self._engine) as connection:
            return queries.get_header(connection, run_id, process)

    def rows(self, run_id: str, trail: KeptTrail) -> Iterator[bytes]:
        """The rows of a trail, as many as it had when it was looked up."""
        left = trail.steps * ROW_SIZE
        for _, body in self._segments(run_id, trail, range(-(-trail.steps // SEGMENT_STEPS))):
            yield body[:left]
            left -= len(body)

    @contextmanager
    def opened(self, run_id: str) -> Iterator[Mapping[str, Trail]]:
        """The trails of a run, by process, as those of a run directory are read."""
        with TemporaryDirectory(prefix="manifest-") as folder:
            laid_out = _LaidOut(Path(folder))
            for trail in self.list(run_id):
                self._lay_out(laid_out, run_id, trail)
                segments = range(-(-trail.steps // SEGMENT_STEPS))
                self._fill(laid_out, run_id, trail, segments)
            yield laid_out.opened()

    def compare(self, before: str, after: str) -> TrailComparison:
        """Where two runs went apart.

        Segments that both share are not read: their rows are the same, so they are left empty on
        both sides, as if nothing had been observed there.

        Raises:
            TrailInvalid: What lies beside the rows cannot be read.
        """
        with TemporaryDirectory(prefix="manifest-") as folder:
            sides = {
                run_id: _LaidOut(Path(folder, str(number)))
                for number, run_id in enumerate((before, after))
            }
            trails = {
                run_id: {trail.process: trail for trail in self.list(run_id)} for run_id in sides
            }
            unlike: dict[str, list[int]] = {}
            for process in trails[before].keys() & trails[after].keys():
                keys = {
                    run_id: self._begin(laid_out, run_id, trails[run_id][process])
                    for run_id, laid_out in sides.items()
                }
                unlike[process] = _unlike(keys[before], keys[after])
            count = 1
            while True:
                for process, ordinals in unlike.items():
                    for run_id, laid_out in sides.items():
                        self._fill(laid_out, run_id, trails[run_id][process], ordinals[:count])
                    del ordinals[:count]
                found = _compared(sides[before], sides[after])
                if not _may_be_earlier(found, unlike):
                    break
                count *= 4
            steps = [max((t.steps for t in trails[r].values()), default=0) for r in (before, after)]
            return found.model_copy(update={"steps_before": steps[0], "steps_after": steps[-1]})

    def _begin(
        self, laid_out: _LaidOut, run_id: str, trail: KeptTrail
    ) -> Mapping[int, tuple[str, int]]:
        """Lay out a trail with no more rows than show which streams were observed."""
        with reading(self._engine) as connection:
            found = queries.list_segments(connection, run_id, trail.process)
        self._lay_out(laid_out, run_id, trail)
        self._fill(laid_out, run_id, trail, _showing(found))
        return found

    def _lay_out(self, laid_out: _LaidOut, run_id: str, trail: KeptTrail) -> None:
        header = self.header(run_id, trail.process)
        laid_out.begin(trail.process, header, trail.steps)
        for suffix, digest in trail.files.items():
            if suffix not in _UNREAD:
                try:
                    laid_out.add(trail.process, suffix, self._blobs.read(self._blobs.find(digest)))
                except BlobNotFound:
                    continue

    def _fill(
        self, laid_out: _LaidOut, run_id: str, trail: KeptTrail, ordinals: Iterable[int]
    ) -> None:
        for ordinal, body in self._segments(run_id, trail, list(ordinals)):
            laid_out.fill(trail.process, ordinal, body)

    def _segments(
        self, run_id: str, trail: KeptTrail, ordinals: Sequence[int]
    ) -> Iterator[tuple[int, bytes]]:
        for start in range(0, len(ordinals), _AT_ONCE):
            some = ordinals[start : start + _AT_ONCE]
            with reading(self._engine) as connection:
                found = list(queries.get_segments(connection, run_id, trail.process, some))
            yield from found


class _LaidOut:
    """The trails of a run as files, whose rows may be holes."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._starts: dict[str, int] = {}
        self._sizes: dict[str, int] = {}

    def begin(self, process: str, header: bytes, steps: int) -> None:
        self._starts[process] = len(header)
        self._sizes[process] = len(header) + steps * ROW_SIZE
        with self._path(process, "bin").open("wb") as file:
            file.write(header)
            file.truncate(self._sizes[process])

    def fill(self, process: str, ordinal: int, body: bytes) -> None:
        start = self._starts[process] + ordinal * SEGMENT_STEPS * ROW_SIZE
        with self._path(process, "bin").open("r+b") as file:
            file.seek(start)
            file.write(body[: self._sizes[process] - start])

    def add(self, process: str, suffix: str, content: Iterable[bytes]) -> None:
        with self._path(process, suffix).open("wb") as file:
            file.writelines(content)

    def opened(self) -> dict[str, Trail]:
        return {process: Trail.open(self._path(process, "bin")) for process in self._starts}

    def _path(self, process: str, suffix: str) -> Path:
        return self._folder / f"{process}.{suffix}"


def _header(process: str, body: bytes) -> bytes:
    end = body.find(b"\n", 0, _LONGEST_HEADER)
    if end < 0:
        raise TrailInvalid(
            f"the rows of '{process}' from step 0 on come with the first line of their file, and "
            "there is none"
        )
    header = body[: end + 1]
    with TemporaryDirectory(prefix="manifest-") as folder:
        path = Path(folder, "header.bin")
        path.write_bytes(header)
        try:
            Trail.open(path)
        except DamagedRun as error:
            raise TrailInvalid(f"the trail of '{process}': {error.reason}") from error
    return header


def _showing(segments: Mapping[int, tuple[str, int]]) -> list[int]:
    """A few segments in which every stream was observed that was at all."""
    seen, found = 0, []
    for ordinal, (_, streams) in segments.items():
        if streams & ~seen:
            seen |= streams
            found.append(ordinal)
    return found


def _unlike(
    before: Mapping[int, tuple[str, int]], after: Mapping[int, tuple[str, int]]
) -> list[int]:
    both = sorted(before.keys() & after.keys())
    return [ordinal for ordinal in both if before[ordinal][0] != after[ordinal][0]]


def _compared(before: _LaidOut, after: _LaidOut) -> TrailComparison:
    try:
        return compare_trails(before.opened(), after.opened())
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        # What lies beside the rows is as its sender made it.
        reason = f"{type(error).__name__}: {error}"[:300]
        raise TrailInvalid(f"these trails cannot be compared: {reason}") from error


def _may_be_earlier(found: TrailComparison, unread: Mapping[str, Sequence[int]]) -> bool:
    firsts = [ordinals[0] * SEGMENT_STEPS for ordinals in unread.values() if ordinals]
    if found.divergence is None:
        return bool(firsts)
    return any(first <= found.divergence.step for first in firsts)
