"""Blobs as rows: which there are, who refers to them, and the bytes of those kept here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import BinaryIO, Final, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    bindparam,
    delete,
    exists,
    insert,
    not_,
    or_,
    select,
    update,
)

from manifest.errors import BlobNotFound
from manifest_server import rows
from manifest_server.tables import (
    SHARED,
    blob_pieces,
    blobs,
    run_blobs,
    run_sections,
    runs,
    section_blobs,
    setups,
    trail_files,
)

PIECE_BYTES: Final = 2**20
GRACE: Final = timedelta(days=1)
"""How long a blob is kept that nothing refers to: the time between sending it and its run."""

Place = Literal["database", "objects"]


@dataclass(frozen=True, slots=True)
class KeptBlob:
    """What is known of a blob."""

    digest: str
    size: int
    place: Place | None
    """None while its bytes are on their way."""


def announce(connection: Connection, digest: str, size: int) -> bool:
    """Say that a blob is on its way, which keeps it from being collected.

    Returns:
        Whether its bytes are there already.
    """
    row = {"digest": digest, "size": size, "unused_since": _now()}
    statement = rows.insert(connection.dialect.name, blobs).values(row)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[blobs.c.digest], set_={"unused_since": row["unused_since"]}
        )
    )
    place = connection.scalar(select(blobs.c.place).where(blobs.c.digest == digest))
    return place is not None


def put_pieces(connection: Connection, digest: str, file: BinaryIO) -> None:
    """Keep the bytes of a blob that was announced."""
    connection.execute(delete(blob_pieces).where(blob_pieces.c.digest == digest))
    ordinal = 0
    while body := file.read(PIECE_BYTES):
        piece = {"digest": digest, "ordinal": ordinal, "body": body}
        connection.execute(insert(blob_pieces).values(piece))
        ordinal += 1


def settle(connection: Connection, digest: str, place: Place) -> None:
    """Say that the bytes of a blob are there."""
    connection.execute(update(blobs).where(blobs.c.digest == digest).values(place=place))


def get_blob(connection: Connection, digest: str, *, project: str | None = None) -> KeptBlob:
    """What is known of a blob.

    Args:
        connection: In a transaction.
        digest: Of its bytes.
        project: Only if a run of this project refers to it.

    Raises:
        BlobNotFound: There is none.
    """
    statement = select(blobs.c.digest, blobs.c.size, blobs.c.place)
    statement = statement.where(blobs.c.digest == digest, blobs.c.place.is_not(None))
    if project is not None:
        statement = statement.where(_is_used_in(project))
    row = connection.execute(statement).one_or_none()
    if row is None:
        raise BlobNotFound(digest)
    return KeptBlob(*row)


def get_piece(connection: Connection, digest: str, ordinal: int) -> bytes:
    """The bytes of one piece.

    Raises:
        BlobNotFound: The blob was collected.
    """
    statement = select(blob_pieces.c.body).where(
        blob_pieces.c.digest == digest, blob_pieces.c.ordinal == ordinal
    )
    body = connection.scalar(statement)
    if body is None:
        raise BlobNotFound(digest)
    return bytes(body)


def lacking_blobs(
    connection: Connection, digests: Collection[str], *, project: str | None = None
) -> list[str]:
    """Those that must be sent before a run that refers to them.

    One that nothing refers to and that may soon be collected is among them, as putting it again
    keeps it; so is one that no run of the given project refers to.
    """
    is_safe = or_(blobs.c.unused_since.is_(None), blobs.c.unused_since > _now(-GRACE / 2))
    found: set[str] = set()
    for portion in rows.portions(sorted(set(digests))):
        statement = select(blobs.c.digest).where(
            blobs.c.digest.in_(portion), blobs.c.place.is_not(None), is_safe
        )
        if project is not None:
            statement = statement.where(_is_used_in(project))
        found.update(connection.scalars(statement))
    return [digest for digest in dict.fromkeys(digests) if digest not in found]


def refer_from_sections(connection: Connection, pairs: Iterable[tuple[str, str]]) -> None:
    """Say which sections, by key, refer to which blobs."""
    _refer(connection, section_blobs, "key", pairs)


def refer_from_runs(connection: Connection, pairs: Iterable[tuple[str, str]]) -> None:
    """Say which runs, by id, refer to which blobs."""
    _refer(connection, run_blobs, "run_id", pairs)


def mark_unused(connection: Connection) -> None:
    """Write down since when nothing refers to a blob, and which are referred to again."""
    unmarked = update(blobs).where(blobs.c.unused_since.is_(None), _is_unused())
    connection.execute(unmarked.values(unused_since=_now()))
    used = update(blobs).where(blobs.c.unused_since.is_not(None), not_(_is_unused()))
    connection.execute(used.values(unused_since=None))


def lock_unused(connection: Connection, *, grace: timedelta, limit: int) -> Sequence[KeptBlob]:
    """Some blobs that nothing refers to for some time, and that nobody puts at this moment."""
    is_old = blobs.c.unused_since <= _now(-grace)
    some = select(blobs.c.digest).where(is_old, _is_unused()).limit(limit)
    locked = connection.scalars(some.with_for_update(skip_locked=True)).all()
    # Asked again once they are locked: a writer may have ended between the question and the lock.
    again = select(blobs.c.digest, blobs.c.size, blobs.c.place)
    again = again.where(blobs.c.digest.in_(locked), is_old, _is_unused())
    return [KeptBlob(*row) for row in connection.execute(again)]


def delete_blobs(connection: Connection, digests: Sequence[str]) -> None:
    """Forget blobs and the bytes that are kept here."""
    connection.execute(delete(blobs).where(blobs.c.digest.in_(digests)))


def _refer(
    connection: Connection, table: Table, column: str, pairs: Iterable[tuple[str, str]]
) -> None:
    referring = sorted({(digest, holder) for holder, digest in pairs})
    if not referring:
        return
    found = [{"digest": digest, column: holder} for digest, holder in referring]
    rows.insert_missing(connection, table, found)
    named = update(blobs).where(
        blobs.c.digest == bindparam("named"), blobs.c.unused_since.is_not(None)
    )
    connection.execute(
        named.values(unused_since=None),
        [{"named": digest} for digest in sorted({digest for digest, _ in referring})],
    )


def _is_unused() -> ColumnElement[bool]:
    return not_(
        or_(*(exists().where(t.c.digest == blobs.c.digest) for t in _REFERRING)),
    )


def _is_used_in(project: str) -> ColumnElement[bool]:
    here = runs.c.project == project
    own = [
        exists().where(t.c.digest == blobs.c.digest, t.c.run_id == runs.c.id, here)
        for t in (run_blobs, trail_files)
    ]
    is_referring = section_blobs.c.digest == blobs.c.digest
    by_section = [
        exists().where(
            is_referring,
            setups.c[f"{name}_key"] == section_blobs.c.key,
            setups.c.project == project,
            runs.c.setup_key == setups.c.key,
        )
        for name in SHARED
    ]
    by_process = exists().where(
        is_referring,
        run_sections.c.key == section_blobs.c.key,
        run_sections.c.run_id == runs.c.id,
        here,
    )
    return or_(*own, *by_section, by_process)


_REFERRING: Final = (run_blobs, section_blobs, trail_files)


def _now(offset: timedelta = timedelta(0)) -> str:
    return (datetime.now(UTC) + offset).isoformat(timespec="microseconds")
