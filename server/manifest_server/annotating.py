"""What people say of a run afterwards: tags and a note, beside the manifest that never changes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, and_, insert, select, update

from manifest.errors import AnnotationsChanged
from manifest.filtering import TAGS
from manifest.models import Annotations
from manifest_server.holders import drop_run_terms
from manifest_server.rows import portions
from manifest_server.runs import check_run, project_of, put_own_terms
from manifest_server.tables import run_annotations
from manifest_server.terms import own_terms

NOTHING_SAID: Final = Annotations()


def get_annotations(connection: Connection, run_id: str) -> Annotations:
    """What was said of a run; version 0 where nothing was.

    Raises:
        RunNotFound: No run has this id.
    """
    check_run(connection, run_id)
    row = connection.execute(
        select(run_annotations).where(run_annotations.c.run_id == run_id)
    ).one_or_none()
    if row is None:
        return NOTHING_SAID
    return Annotations(
        version=row.version,
        tags=json.loads(row.tags),
        note=row.note,
        updated_at=row.updated_at,
        updated_by=row.updated_by,
    )


def get_tags(connection: Connection, run_ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """The tags of runs, of those that have any."""
    columns = (run_annotations.c.run_id, run_annotations.c.tags)
    return {
        row.run_id: json.loads(row.tags)
        for portion in portions(run_ids)
        for row in connection.execute(select(*columns).where(run_annotations.c.run_id.in_(portion)))
    }


def put_annotations(
    connection: Connection, run_id: str, said: Annotations, *, by: str | None
) -> Annotations:
    """Replace what was said of a run, if it is still what the writer has seen.

    Args:
        connection: In a transaction that writes.
        run_id: The run.
        said: The new words; `version` is that of the words that they replace.
        by: Who says so.

    Raises:
        RunNotFound: No run has this id.
        AnnotationsChanged: Someone else has changed them since.
    """
    before = get_annotations(connection, run_id)
    if before.version != said.version:
        raise AnnotationsChanged(run_id, said.version, before.version)
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    after = said.model_copy(
        update={"version": said.version + 1, "updated_at": now, "updated_by": by}
    )
    _write(connection, run_id, after)
    project = project_of(connection, run_id)
    old = [term.id for term in own_terms(project, TAGS, before.tags)]
    drop_run_terms(connection, run_id, old)
    put_own_terms(connection, [(run_id, term) for term in own_terms(project, TAGS, after.tags)])
    return after


def _write(connection: Connection, run_id: str, after: Annotations) -> None:
    row = {
        "version": after.version,
        "tags": json.dumps(after.tags, sort_keys=True),
        "note": after.note,
        "updated_at": after.updated_at,
        "updated_by": after.updated_by,
    }
    if after.version == 1:
        connection.execute(insert(run_annotations).values(run_id=run_id, **row))
        return
    # Two writers that have both read the same version: the second changes no row.
    is_unchanged = and_(
        run_annotations.c.run_id == run_id, run_annotations.c.version == after.version - 1
    )
    changed = connection.execute(update(run_annotations).where(is_unchanged).values(**row))
    if changed.rowcount != 1:
        raise AnnotationsChanged(run_id, after.version - 1, after.version)
