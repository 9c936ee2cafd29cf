"""The trails of a store: rows in and out, and where two runs went apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Engine

from manifest.comparing import compare_trails
from manifest.errors import BlobNotFound, DamagedRun, TrailInvalid, TrailNotFound
from manifest.models import KeptTrail, TrailComparison
from manifest.segments import SEGMENT_STEPS, Segments
from manifest.streams import ROW_SIZE
from manifest.trail import Trail
from manifest_server import trails as queries
from manifest_server.blobstore import Blobs
from manifest_server.database import reading, transaction
from manifest_server.trails import SEGMENT_BYTES

PROCESS: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~-]{0,127}")
_SUFFIX: Final = re.compile(r"(?!bin$)[a-z]{1,20}")
_LONGEST_HEADER: Final = 4096
_PIECE_BYTES: Final = 16 * SEGMENT_BYTES  # that are held in memory
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    RecursionError,
)


@contextmanager
def legible() -> Iterator[None]:
    """Trails are read in here: what lies beside their rows is as its sender made it.

    Raises:
        TrailInvalid: It cannot be read.
    """
    try:
        yield
    except _UNREADABLE as error:
        reason = f"{type(error).__name__}: {error}"[:300]
        raise TrailInvalid(f"these trails cannot be compared: {reason}") from error


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
        if not PROCESS.fullmatch(process):
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
        rows = self._rows(run_id, trail)
        for start in range(0, len(rows), _PIECE_BYTES):
            yield rows[start : start + _PIECE_BYTES]

    def opened(self, run_id: str) -> dict[str, Trail]:
        """The trails of a run, by process; what they hold is read as it is asked for."""
        return {trail.process: self._opened(run_id, trail) for trail in self.list(run_id)}

    def compare(self, before: str, after: str) -> TrailComparison:
        """Where two runs went apart.

        Raises:
            TrailInvalid: What lies beside the rows cannot be read.
        """
        with legible():
            return compare_trails(self.opened(before), self.opened(after))

    def _opened(self, run_id: str, trail: KeptTrail) -> Trail:
        with reading(self._engine) as connection:
            header = queries.get_header(connection, run_id, trail.process)
            nodes = queries.list_nodes(connection, run_id, trail.process)
        segments = Segments.over(nodes[: trail.steps // SEGMENT_STEPS])

        def beside(suffix: str) -> bytes:
            digest = trail.files.get(suffix.removeprefix("."))
            if digest is None:
                return b""
            try:
                return self._blobs.get(digest)
            except BlobNotFound:  # deleted
                return b""

        return Trail.of_parts(header, self._rows(run_id, trail), beside, segments)

    def _rows(self, run_id: str, trail: KeptTrail) -> _Rows:
        def read(ordinals: Sequence[int]) -> dict[int, bytes]:
            with reading(self._engine) as connection:
                return dict(queries.get_segments(connection, run_id, trail.process, ordinals))

        return _Rows(read, trail.steps * ROW_SIZE)


class _Rows:
    """The rows of a trail, read as they are asked for; the last that were read are held."""

    def __init__(self, read: Callable[[Sequence[int]], dict[int, bytes]], size: int) -> None:
        self._read = read
        self._size = size
        self._held: dict[int, bytes] = {}

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        wanted = range(start // SEGMENT_BYTES, -(-stop // SEGMENT_BYTES))
        if not self._held.keys() >= {*wanted}:
            self._held = self._read(wanted)
        content = b"".join(self._held[ordinal] for ordinal in wanted)
        base = wanted.start * SEGMENT_BYTES
        return content[start - base : stop - base]


def _header(process: str, body: bytes) -> bytes:
    end = body.find(b"\n", 0, _LONGEST_HEADER)
    if end < 0:
        raise TrailInvalid(
            f"the rows of '{process}' from step 0 on come with the first line of their file, and "
            "there is none"
        )
    header = body[: end + 1]
    try:
        Trail.of_parts(header, b"", lambda _: b"", None)
    except DamagedRun as error:
        raise TrailInvalid(f"the trail of '{process}': {error.reason}") from error
    return header
