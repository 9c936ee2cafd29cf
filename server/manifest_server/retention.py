"""Delete runs, and then what nobody refers to any more."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, and_, delete, exists, not_, or_, select

from manifest.blobs import blobs_in, blobs_of
from manifest.filtering import TAGS
from manifest_server.annotating import get_annotations
from manifest_server.blobs import delete_blobs, lock_unused
from manifest_server.gathering import drop_run_terms
from manifest_server.holders import is_held
from manifest_server.objects import Objects
from manifest_server.packing import expanded
from manifest_server.reading import get_run
from manifest_server.rows import portions
from manifest_server.tables import (
    SHARED,
    names,
    run_blobs,
    run_sections,
    runs,
    section_blobs,
    section_terms,
    sections,
    segments,
    setups,
    terms,
    trail_segments,
)
from manifest_server.terms import OWN, own_terms, terms_of

_PORTION = 500
_MANY = 20_000  # of what is small; each portion looks through all of them


def delete_run(connection: Connection, run_id: str) -> None:
    """Forget a run and what was said of it; its sections stay until they are collected.

    Raises:
        RunNotFound: No run has this id.
    """
    manifest = get_run(connection, run_id)
    own = {name: manifest.sections.get(name, {}) for name in OWN}
    for digests in portions(sorted(blobs_of(manifest))):
        own_blobs = delete(run_blobs).where(run_blobs.c.run_id == run_id)
        connection.execute(own_blobs.where(run_blobs.c.digest.in_(digests)))
    own[TAGS] = dict(get_annotations(connection, run_id).tags)
    found = (own_terms(manifest.project, name, values) for name, values in own.items())
    drop_run_terms(connection, ((run_id, term.id) for some in found for term in some))
    connection.execute(delete(runs).where(runs.c.id == run_id))


def _collect(
    connection: Connection, key: Column[Any], is_unused: ColumnElement[bool], limit: int
) -> int:
    # Those that a writer is about to refer to are locked by it and passed over. Asked again once
    # they are locked here, as a writer may have ended between the question and the lock.
    some = select(key).where(is_unused).limit(limit)
    locked = connection.scalars(some.with_for_update(skip_locked=True)).all()
    deleted = connection.execute(delete(key.table).where(key.in_(locked), is_unused))
    return deleted.rowcount


def collect_setups(connection: Connection, *, limit: int = _PORTION) -> int:
    """Delete some setups that no run has; gives how many."""
    is_unused = not_(exists().where(runs.c.setup_key == setups.c.key))
    return _collect(connection, setups.c.key, is_unused, limit)


def collect_names(connection: Connection, *, limit: int = _PORTION) -> int:
    """Delete some names that no run has; gives how many."""
    is_unused = not_(exists().where(runs.c.name == names.c.name))
    return _collect(connection, names.c.number, is_unused, limit)


def collect_sections(connection: Connection, *, limit: int = _PORTION) -> int:
    """Delete some sections that nothing refers to, and their terms; gives how many."""
    some = select(sections.c.key).where(_is_unused()).limit(limit)
    # See `_collect`; here terms and files go with each.
    locked = connection.scalars(some.with_for_update(skip_locked=True)).all()
    again = select(sections.c.key, sections.c.body).where(sections.c.key.in_(locked), _is_unused())
    found = connection.execute(again).all()
    for key, body in found:
        values = json.loads(expanded(body))
        numbers = {term.id for name in SHARED for term in terms_of(name, values)}
        connection.execute(
            delete(section_terms).where(
                section_terms.c.key == key, section_terms.c.term.in_(numbers)
            )
        )
        for digests in portions(sorted(blobs_in(values))):
            named = delete(section_blobs).where(section_blobs.c.key == key)
            connection.execute(named.where(section_blobs.c.digest.in_(digests)))
    connection.execute(delete(sections).where(sections.c.key.in_([key for key, _ in found])))
    return len(found)


def _is_unused() -> ColumnElement[bool]:
    used = [exists().where(setups.c[f"{name}_key"] == sections.c.key) for name in SHARED]
    return not_(or_(*used, exists().where(run_sections.c.key == sections.c.key)))


def collect_segments(connection: Connection, *, limit: int = _PORTION) -> int:
    """Delete some segments that no trail has; gives how many."""
    is_unused = not_(exists().where(trail_segments.c.key == segments.c.key))
    return _collect(connection, segments.c.key, is_unused, limit)


def collect_blobs(
    connection: Connection, objects: Objects | None, *, grace: timedelta, limit: int = _PORTION
) -> int:
    """Delete some blobs that nothing refers to for some time; gives how many."""
    found = lock_unused(connection, grace=grace, limit=limit)
    outside = [blob.digest for blob in found if blob.place != "database"]
    if outside and objects is not None:
        objects.delete(outside)
    delete_blobs(connection, [blob.digest for blob in found])
    return len(found)


def collect_terms(connection: Connection, *, limit: int = _MANY) -> int:
    """Delete some terms that neither a section nor a run has; gives how many."""
    is_unused = and_(
        not_(exists().where(section_terms.c.term == terms.c.id)),
        not_(is_held(connection, terms.c.id)),
    )
    return _collect(connection, terms.c.id, is_unused, limit)
