"""Trails as rows: each in segments of equal length that runs share."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, exists, func, select, update

from manifest.errors import SegmentsLacking, TrailDiffers, TrailGap, TrailInvalid, TrailNotFound
from manifest.models import KeptTrail
from manifest.segments import SEGMENT_STEPS, segment_digests
from manifest.streams import ROW_SIZE
from manifest_server.columns import HEAD_SIZE, packed, size_of, unpacked
from manifest_server.rows import (
    copy_missing,
    execute_many,
    insert,
    insert_many,
    insert_missing,
    locked_keys,
    portions,
)
from manifest_server.runs import check_run
from manifest_server.tables import runs, segments, trail_files, trail_segments, trails

SEGMENT_BYTES: Final = SEGMENT_STEPS * ROW_SIZE


@dataclass(frozen=True, slots=True)
class Segment:
    """The rows of up to `SEGMENT_STEPS` steps."""

    key: str
    node: bytes
    """As `manifest.segments.Segments` has it; of a segment that is short, of no use yet."""
    body: bytes

    @classmethod
    def of(cls, body: bytes) -> Segment:
        """Name rows by the first half of their SHA-256."""
        return cls(hashlib.sha256(body).hexdigest()[:32], segment_digests(body), body)


def cut(rows: bytes) -> list[Segment]:
    """Cut rows into segments; only the last may be short."""
    if len(rows) % ROW_SIZE:
        raise TrailInvalid(f"expected rows of {ROW_SIZE} bytes each, found {len(rows)} bytes")
    return [
        Segment.of(rows[start : start + SEGMENT_BYTES])
        for start in range(0, len(rows), SEGMENT_BYTES)
    ]


def put_header(connection: Connection, run_id: str, process: str, header: bytes) -> None:
    """Begin a trail, or make sure that it began like this.

    Raises:
        RunNotFound: No run has this id.
        TrailDiffers: It began otherwise.
    """
    check_run(connection, run_id)
    row = {"run_id": run_id, "process": process, "header": header, "steps": 0}
    insert_missing(connection, trails, [row])
    if get_header(connection, run_id, process) != header:
        raise TrailDiffers(process, 0)


def get_header(connection: Connection, run_id: str, process: str) -> bytes:
    """The first line of a trail.

    Raises:
        TrailNotFound: There is no such trail.
    """
    header = connection.scalar(select(trails.c.header).where(_is_trail(run_id, process)))
    if header is None:
        raise TrailNotFound(run_id, process)
    return bytes(header)


def put_segments(
    connection: Connection, run_id: str, process: str, found: Sequence[Segment], *, start: int
) -> int:
    """Add rows to a trail, from a step on; gives how many steps are kept now.

    Raises:
        TrailNotFound: It has not begun.
        TrailGap: Steps before these are not kept.
        TrailDiffers: Other rows are kept for these steps.
    """
    by_key = {segment.key: segment for segment in found}
    while new := sorted(by_key.keys() - locked_keys(connection, segments.c.key, by_key)):
        rows = [
            {"key": key, "node": by_key[key].node, "body": packed(by_key[key].body)} for key in new
        ]
        if copy_missing(connection, segments, rows):
            break
    sizes = {key: len(segment.body) for key, segment in by_key.items()}
    return _place(connection, run_id, process, [s.key for s in found], sizes, start=start)


def put_known_segments(
    connection: Connection,
    run_id: str,
    process: str,
    keys: Sequence[str],
    *,
    start: int,
    project: str | None = None,
) -> int:
    """Add rows to a trail that are kept already; gives how many steps it has now.

    Args:
        connection: In a transaction that writes.
        run_id: The run.
        process: Whose trail it is.
        keys: Of the segments, in order.
        start: The step of the first row.
        project: Only segments of this project's runs are known.

    Raises:
        SegmentsLacking: Not all of them are known.
        TrailNotFound: It has not begun.
        TrailGap: Steps before these are not kept.
        TrailDiffers: Other rows are kept for these steps.
    """
    locked_keys(connection, segments.c.key, set(keys))
    lacking = lacking_segments(connection, keys, project=project)
    if lacking:
        raise SegmentsLacking(lacking)
    sizes: dict[str, int] = {}
    for portion in portions(sorted(set(keys))):
        start_of = func.substr(segments.c.body, 1, HEAD_SIZE)
        size = select(segments.c.key, func.length(segments.c.body), start_of)
        found = connection.execute(size.where(segments.c.key.in_(portion)))
        sizes.update((key, size_of(length, bytes(beginning))) for key, length, beginning in found)
    return _place(connection, run_id, process, keys, sizes, start=start)


def lacking_segments(
    connection: Connection, keys: Collection[str], *, project: str | None = None
) -> list[str]:
    """Those whose rows must be sent."""
    found: set[str] = set()
    for portion in portions(sorted(set(keys))):
        statement = select(segments.c.key).where(segments.c.key.in_(portion))
        if project is not None:
            statement = statement.where(
                exists().where(
                    trail_segments.c.key == segments.c.key,
                    trail_segments.c.run_id == runs.c.id,
                    runs.c.project == project,
                )
            )
        found.update(connection.scalars(statement))
    return [key for key in dict.fromkeys(keys) if key not in found]


def put_file(connection: Connection, run_id: str, process: str, suffix: str, digest: str) -> None:
    """Say which blob lies beside the rows of a trail, in place of the one before.

    Raises:
        TrailNotFound: There is no such trail.
    """
    get_header(connection, run_id, process)
    row = {"run_id": run_id, "process": process, "suffix": suffix, "digest": digest}
    statement = insert(connection.dialect.name, trail_files).values(row)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=list(trail_files.primary_key), set_={"digest": digest}
        )
    )


def list_trails(connection: Connection, run_id: str) -> list[KeptTrail]:
    """The trails of a run, by process."""
    files: dict[str, dict[str, str]] = {}
    for row in connection.execute(select(trail_files).where(trail_files.c.run_id == run_id)):
        files.setdefault(row.process, {})[row.suffix] = row.digest
    statement = select(trails.c.process, trails.c.steps).where(trails.c.run_id == run_id)
    return [
        KeptTrail(process=process, steps=steps, files=files.get(process, {}))
        for process, steps in connection.execute(statement.order_by(trails.c.process))
    ]


def list_nodes(connection: Connection, run_id: str, process: str) -> list[bytes]:
    """The digests over each segment of a trail, in order."""
    statement = select(segments.c.node).join_from(trail_segments, segments)
    statement = statement.where(_is_segment_of(run_id, process))
    return [bytes(n) for n in connection.scalars(statement.order_by(trail_segments.c.ordinal))]


def get_segments(
    connection: Connection, run_id: str, process: str, ordinals: Collection[int]
) -> Iterator[tuple[int, bytes]]:
    """The rows of some segments of a trail, in order."""
    statement = select(trail_segments.c.ordinal, segments.c.body)
    statement = statement.join_from(trail_segments, segments)
    statement = statement.where(
        _is_segment_of(run_id, process), trail_segments.c.ordinal.in_(ordinals)
    )
    for ordinal, body in connection.execute(statement.order_by(trail_segments.c.ordinal)):
        yield ordinal, unpacked(bytes(body))


def _place(
    connection: Connection,
    run_id: str,
    process: str,
    keys: Sequence[str],
    sizes: Mapping[str, int],
    *,
    start: int,
) -> int:
    statement = select(trails.c.steps).where(_is_trail(run_id, process)).with_for_update()
    kept: int | None = connection.scalar(statement)
    if kept is None:
        raise TrailNotFound(run_id, process)
    whole = kept - kept % SEGMENT_STEPS
    if start > whole:
        raise TrailGap(process, start, whole)
    if any(sizes[key] != SEGMENT_BYTES for key in keys[:-1]):
        raise TrailInvalid("only the last segment of a trail may be short")
    first = start // SEGMENT_STEPS
    new = dict(zip(count(first), keys, strict=False))
    new = _without_known(connection, run_id, process, new)
    rows = [
        {"run_id": run_id, "process": process, "ordinal": ordinal, "key": key}
        for ordinal, key in new.items()
    ]
    if rows:
        adding = insert_many(connection.dialect.name, trail_segments, tuple(rows[0]))
        adding = adding.on_conflict_do_update(
            index_elements=list(trail_segments.primary_key), set_={"key": adding.excluded.key}
        )
        execute_many(connection, adding, rows)
    steps = max(kept, start + sum(sizes[key] for key in keys) // ROW_SIZE)
    connection.execute(update(trails).where(_is_trail(run_id, process)).values(steps=steps))
    return steps


def _without_known(
    connection: Connection, run_id: str, process: str, new: Mapping[int, str]
) -> dict[int, str]:
    """Leave out the segments that are kept so already, or with more rows."""
    known = select(trail_segments.c.ordinal, trail_segments.c.key).where(
        _is_segment_of(run_id, process), trail_segments.c.ordinal >= min(new, default=0)
    )
    left = dict(new)
    for ordinal, key in connection.execute(known):
        if ordinal not in new:
            continue
        if key == new[ordinal] or not _is_longer(connection, process, ordinal, key, new[ordinal]):
            del left[ordinal]
    return left


def _is_longer(
    connection: Connection, process: str, ordinal: int, kept_key: str, new_key: str
) -> bool:
    keys = [kept_key, new_key]
    statement = select(segments.c.key, segments.c.body).where(segments.c.key.in_(keys))
    bodies = {key: unpacked(bytes(body)) for key, body in connection.execute(statement)}
    kept, new = bodies[kept_key], bodies[new_key]
    if not (new.startswith(kept) or kept.startswith(new)):
        raise TrailDiffers(process, ordinal * SEGMENT_STEPS)
    return len(new) > len(kept)


def _is_trail(run_id: str, process: str) -> ColumnElement[bool]:
    return and_(trails.c.run_id == run_id, trails.c.process == process)


def _is_segment_of(run_id: str, process: str) -> ColumnElement[bool]:
    return and_(trail_segments.c.run_id == run_id, trail_segments.c.process == process)
