"""What people say of a run afterwards: tags and a note, beside the manifest that never changes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, Insert, Row, Select, select

from manifest.errors import AnnotationsChanged, ManifestError, RunNotFound
from manifest.filtering import TAGS
from manifest.models import Annotations
from manifest_server.auditing import Change, put_changes
from manifest_server.database import location
from manifest_server.gathering import drop_run_terms
from manifest_server.rows import execute_many, insert_many, is_given, portions
from manifest_server.runs import put_own_terms
from manifest_server.tables import run_annotations, runs
from manifest_server.terms import Term, own_terms

NOTHING_SAID: Final = Annotations()


@dataclass(frozen=True, slots=True)
class Remark:
    """What somebody says of a run."""

    run_id: str
    said: Annotations
    """The new words; `version` is that of the words that they replace."""
    by: str | None = None
    """Who says so."""
    change: Change | None = None
    """What is written down of it."""
    project: str | None = None
    """The only one whose runs they know of; None for all."""


def get_annotations(connection: Connection, run_id: str) -> Annotations:
    """What was said of a run; version 0 where nothing was.

    Raises:
        RunNotFound: No run has this id.
    """
    known = _known(connection, [run_id])
    if run_id not in known:
        raise RunNotFound(run_id, location(connection.engine.url))
    return known[run_id][1]


def get_tags(connection: Connection, run_ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """The tags of runs, of those that have any."""
    statement = _tagging(connection.dialect.name)
    return {
        row.run_id: json.loads(row.tags)
        for portion in portions(run_ids)
        for row in connection.execute(statement, {"ids": portion})
    }


@cache
def _tagging(dialect: str) -> Select[str, str]:
    statement = select(run_annotations.c.run_id, run_annotations.c.tags)
    return statement.where(is_given(dialect, run_annotations.c.run_id, "ids"))


def put_remarks(
    connection: Connection, remarks: Sequence[Remark]
) -> list[Annotations | ManifestError]:
    """Replace what was said of runs, where it is still what each writer has seen.

    Args:
        connection: In a transaction that writes.
        remarks: Each about another run.

    Returns:
        What is said of each run now, or `RunNotFound` or `AnnotationsChanged`.
    """
    known = _known(connection, [each.run_id for each in remarks])
    found: dict[str, Annotations | ManifestError] = {}
    for each in remarks:
        found[each.run_id] = _answer(connection, each, known.get(each.run_id))
    # One order for everybody, or two writers of the same rows wait for each other for ever.
    after = {key: said for key, said in sorted(found.items()) if isinstance(said, Annotations)}
    written = _write(connection, after)
    for run_id in after.keys() - written:  # another writer had read the same version
        version = after[run_id].version
        found[run_id] = AnnotationsChanged(run_id, version - 1, version)
    _put_tags(connection, {run_id: (*known[run_id], after[run_id]) for run_id in written})
    put_changes(connection, (e.change for e in remarks if e.change and e.run_id in written))
    return [found[each.run_id] for each in remarks]


def _answer(
    connection: Connection, remark: Remark, known: tuple[str, Annotations] | None
) -> Annotations | ManifestError:
    said = remark.said
    if known is None or remark.project not in (None, known[0]):
        return RunNotFound(remark.run_id, location(connection.engine.url))
    _, before = known
    if before.version != said.version:
        return AnnotationsChanged(remark.run_id, said.version, before.version)
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return said.model_copy(
        update={"version": said.version + 1, "updated_at": now, "updated_by": remark.by}
    )


def _known(connection: Connection, run_ids: Sequence[str]) -> dict[str, tuple[str, Annotations]]:
    """The project of each run that there is, and what was said of it."""
    statement = _knowing(connection.dialect.name)
    return {
        row.id: (row.project, NOTHING_SAID if row.version is None else _read(row))
        for portion in portions(run_ids)
        for row in connection.execute(statement, {"ids": portion})
    }


@cache
def _knowing(dialect: str) -> Select[Any]:
    columns = (runs.c.id, runs.c.project, *run_annotations.c)
    statement = select(*columns).outerjoin_from(runs, run_annotations)
    return statement.where(is_given(dialect, runs.c.id, "ids"))


def _read(row: Row[Any]) -> Annotations:
    return Annotations(
        version=row.version,
        tags=json.loads(row.tags),
        note=row.note,
        updated_at=row.updated_at,
        updated_by=row.updated_by,
    )


def _write(connection: Connection, after: Mapping[str, Annotations]) -> set[str]:
    """Write what is said of runs; gives those of which nobody else has said something since."""
    rows = [
        {
            "run_id": run_id,
            "version": said.version,
            "tags": json.dumps(said.tags, sort_keys=True),
            "note": said.note,
            "updated_at": said.updated_at,
            "updated_by": said.updated_by,
        }
        for run_id, said in after.items()
    ]
    if not rows:
        return set()
    statement = _writing(connection.dialect.name, tuple(rows[0]))
    returned = statement.returning(run_annotations.c.run_id)
    return set(execute_many(connection, returned, rows).scalars())


@cache
def _writing(dialect: str, names: tuple[str, ...]) -> Insert:
    statement = insert_many(dialect, run_annotations, names)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[run_annotations.c.run_id],
        set_={name: new[name] for name in names if name != "run_id"},
        where=run_annotations.c.version == new.version - 1,
    )


def _put_tags(
    connection: Connection, changed: Mapping[str, tuple[str, Annotations, Annotations]]
) -> None:
    """Have runs found by their tags, and no more by those that they had."""
    gone: list[tuple[str, int]] = []
    new: dict[str, list[Term]] = {}
    for run_id, (project, before, after) in changed.items():
        old = {term.id for term in own_terms(project, TAGS, before.tags)}
        now = {term.id: term for term in own_terms(project, TAGS, after.tags)}
        gone += ((run_id, number) for number in old - now.keys())
        new[run_id] = [now[number] for number in now.keys() - old]
    drop_run_terms(connection, gone)
    put_own_terms(connection, new)
