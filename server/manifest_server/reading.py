"""Read runs, many at once: the sections that they share are read and decoded once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, select

from manifest.errors import RunNotFound
from manifest.models import Manifest, Section
from manifest_server.database import location
from manifest_server.packing import (
    KeptSection,
    UnpackedSection,
    has_sections_of_processes,
    unpack_document,
    unpack_run,
    unpack_section,
    unpack_sections,
)
from manifest_server.recent import Recent
from manifest_server.rows import portions
from manifest_server.tables import SHARED, run_sections, runs, sections, setups

MOST_BYTES: Final = 2**23
"""Of canonical JSON; decoded it takes some times more."""


class SharedSections:
    """The shared sections that were read last: they never change, so they stay in memory."""

    def __init__(self, *, most_bytes: int = MOST_BYTES) -> None:
        self._kept: Recent[UnpackedSection] = Recent(most_bytes, lambda section: section.size)

    def read(self, connection: Connection, keys: Iterable[str]) -> dict[str, UnpackedSection]:
        """Those of these sections that there are, by key.

        Raises:
            DigestMismatch: The bytes of one were changed.
        """
        wanted = set(keys)
        found = self._kept.get(wanted)
        for portion in portions(sorted(wanted - found.keys())):
            statement = select(sections.c.key, sections.c.body).where(sections.c.key.in_(portion))
            rows = connection.execute(statement)
            read = {key: unpack_section(key, body) for key, body in rows}
            self._kept.add(read.items())
            found |= read
        return found


def get_run(connection: Connection, run_id: str, shared: SharedSections | None = None) -> Manifest:
    """The whole manifest of one run.

    Raises:
        RunNotFound: No run has this id.
    """
    return get_runs(connection, [run_id], shared)[0]


def get_runs(
    connection: Connection, run_ids: Sequence[str], shared: SharedSections | None = None
) -> list[Manifest]:
    """Whole manifests, in the order in which they are asked for.

    Args:
        connection: In a transaction.
        run_ids: Which ones.
        shared: Where sections that were read before are found.

    Raises:
        RunNotFound: No run has one of these ids.
    """
    shared = shared or SharedSections()
    found: dict[str, Manifest] = {}
    for rows in _rows(connection, run_ids, SHARED):
        kept = _own(connection, rows, SHARED, shared)
        documents = {row.id: unpack_document(row.document) for row in rows}
        others = _of_processes(connection, documents, shared)
        for row in rows:
            parts = [*kept[row.id], *others.get(row.id, ())]
            found[row.id] = unpack_run(documents[row.id], row.digest, parts)
    if lacking := [run_id for run_id in run_ids if run_id not in found]:
        raise RunNotFound(lacking[0], location(connection.engine.url))
    return [found[run_id] for run_id in run_ids]


def get_values(
    connection: Connection, run_ids: Sequence[str], names: Collection[str], shared: SharedSections
) -> dict[str, dict[str, Section]]:
    """Some sections of runs, by run and name, without a look at the others."""
    wanted = [name for name in SHARED if name in names]
    found: dict[str, dict[str, Section]] = {}
    for rows in _rows(connection, run_ids, wanted):
        kept = _own(connection, rows, wanted, shared)
        for row in rows:
            values = unpack_sections(row.document, kept[row.id])
            found[row.id] = {name: values[name] for name in names if name in values}
    return found


def get_hardware(
    connection: Connection, run_ids: Sequence[str], shared: SharedSections
) -> dict[str, Section]:
    """What these runs ran on, of those that have ended."""
    keys: dict[str, str] = {}
    for portion in portions(run_ids):
        statement = (
            select(runs.c.id, setups.c.hardware_key)
            .join_from(runs, setups, setups.c.key == runs.c.setup_key)
            .where(runs.c.id.in_(portion), setups.c.hardware_key.is_not(None))
        )
        keys.update((row.id, row.hardware_key) for row in connection.execute(statement))
    found = shared.read(connection, keys.values())
    return {run_id: found[key].values for run_id, key in keys.items() if key in found}


def _rows(
    connection: Connection, run_ids: Sequence[str], names: Sequence[str]
) -> Iterator[Sequence[Row[Any]]]:
    """Documents, and the keys of some of the sections that runs share."""
    for portion in portions(run_ids):
        yield connection.execute(
            select(
                runs.c.id,
                runs.c.document,
                runs.c.digest,
                *(setups.c[f"{name}_key"] for name in names),
            )
            .outerjoin_from(runs, setups, setups.c.key == runs.c.setup_key)
            .where(runs.c.id.in_(portion))
        ).all()


def _own(
    connection: Connection, rows: Sequence[Row[Any]], names: Sequence[str], shared: SharedSections
) -> Mapping[str, Sequence[KeptSection]]:
    """What the first processes that trained recorded, by run."""
    keys = {row.id: [(name, getattr(row, f"{name}_key")) for name in names] for row in rows}
    found = shared.read(connection, (key for pairs in keys.values() for _, key in pairs if key))
    return {
        run_id: [KeptSection("", name, found[key]) for name, key in pairs if key in found]
        for run_id, pairs in keys.items()
    }


def _of_processes(
    connection: Connection, documents: Mapping[str, Mapping[str, Any]], shared: SharedSections
) -> Mapping[str, Sequence[KeptSection]]:
    """What the other processes recorded, by run."""
    run_ids = [key for key, whole in documents.items() if has_sections_of_processes(whole)]
    if not run_ids:
        return {}
    statement = select(run_sections).where(run_sections.c.run_id.in_(run_ids))
    rows = connection.execute(statement).all()
    contents = shared.read(connection, (row.key for row in rows))
    found: dict[str, list[KeptSection]] = {}
    for row in rows:
        each = KeptSection(row.process, row.name, contents[row.key])
        found.setdefault(row.run_id, []).append(each)
    return found
