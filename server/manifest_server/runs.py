"""Store and find runs: functions over a connection."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from itertools import zip_longest
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    bindparam,
    exists,
    select,
    update,
)

from manifest.blobs import blobs_in
from manifest.canonical import digest_bytes
from manifest.errors import DigestMismatch, RunNotFound
from manifest.filtering import Filter
from manifest.models import RunSummary, Verdict
from manifest_server.blobs import refer_from_runs, refer_from_sections
from manifest_server.database import location
from manifest_server.gathering import put_run_terms
from manifest_server.newest import newest_runs
from manifest_server.packing import (
    PackedRun,
    SharedSection,
    compressed,
    expanded,
    pack_verdict,
    section_key_of,
    unpack_verdict,
)
from manifest_server.rows import (
    execute_by_column,
    execute_many,
    insert_many,
    insert_missing,
    is_given,
    locked_keys,
    locked_numbers,
    portions,
)
from manifest_server.tables import (
    SHARED,
    names,
    projects,
    run_sections,
    runs,
    section_terms,
    sections,
    setups,
    terms,
)
from manifest_server.terms import Term, terms_of

_HEX_DIGITS: Final = 32

_LISTED = tuple(RunSummary.model_fields)
_SUMMARY = [runs.c[name] for name in _LISTED]
_VERDICT_COLUMNS = ("outcome", "verdict")


def put_runs(
    connection: Connection, packed: Sequence[PackedRun]
) -> list[tuple[PackedRun, DigestMismatch]]:
    """Insert runs, or replace what was known of them while they were not sealed.

    Returns:
        Those of which nothing was written, as another sealed run is kept under their id.
    """
    if not packed:
        return []
    chosen = _chosen(packed)
    written = _insert_or_replace(connection, [run.row for run in chosen])
    _put_parts(connection, [run for run in chosen if run.id in written])
    # Somebody else was here before where nothing was written.
    kept = {run.id: run.digest for run in chosen if run.id in written}
    kept |= digests(connection, (run.id for run in chosen if run.id not in written))
    return [(run, _refused(connection, run, kept)) for run in packed if _is_other(run, kept)]


def _chosen(packed: Sequence[PackedRun]) -> list[PackedRun]:
    """Of each run one: the first that is sealed, or the last that is not."""
    found: dict[str, PackedRun] = {}
    for run in packed:
        if run.id not in found or not found[run.id].digest:
            found[run.id] = run
    # One order for everybody, or two writers of the same rows wait for each other for ever.
    return sorted(found.values(), key=lambda run: run.id)


def _put_parts(connection: Connection, added: Sequence[PackedRun]) -> None:
    """Insert what lies beside the rows of runs."""
    found = {str(run.setup["key"]): run.setup for run in added if run.setup}
    known = locked_keys(connection, setups.c.key, found)
    # What a known setup refers to is there, and stays while the setup is locked.
    shared = {
        key: section
        for run in added
        if run.references or run.row["setup_key"] not in known
        for key, section in run.sections.items()
    }
    new = _put_sections(connection, shared)
    _put_setups(connection, [found[key] for key in sorted(found.keys() - known)], shared, new)
    # A known setup came with its project.
    news = (run for run in added if run.row["setup_key"] not in known)
    named = sorted({str(run.row["project"]) for run in news})
    insert_missing(connection, projects, [{"name": name} for name in named])
    _put_names(connection, {str(run.row["name"]) for run in added if run.row["name"] is not None})
    insert_missing(connection, run_sections, [row for run in added for row in run.references])
    put_own_terms(connection, {run.id: run.terms for run in added})
    refer_from_runs(connection, ((run.id, digest) for run in added for digest in run.blobs))


def _put_names(connection: Connection, found: set[str]) -> None:
    # Those that are there stay while they are locked; see `retention`.
    new = sorted(found - locked_keys(connection, names.c.name, found))
    insert_missing(connection, names, [{"name": name} for name in new])


def _is_other(run: PackedRun, kept: Mapping[str, str]) -> bool:
    return bool(run.digest) and run.digest != kept[run.id]


def _refused(connection: Connection, run: PackedRun, kept: Mapping[str, str]) -> DigestMismatch:
    where = f"run {run.id}, sealed already in {location(connection.engine.url)}"
    return DigestMismatch(kept[run.id], run.digest, where)


def put_own_terms(connection: Connection, held: Mapping[str, Sequence[Term]]) -> None:
    """Say which terms of their own runs have that they had not before."""
    new = _put_terms(connection, {term.id: term for some in held.values() for term in some})
    put_run_terms(connection, held, new)


def check_run(connection: Connection, run_id: str) -> None:
    """Make sure that there is such a run.

    Raises:
        RunNotFound: There is none.
    """
    if connection.scalar(select(runs.c.id).where(runs.c.id == run_id)) is None:
        raise RunNotFound(run_id, location(connection.engine.url))


def _put_sections(connection: Connection, shared: Mapping[str, SharedSection]) -> list[str]:
    """Insert sections that are new; gives their keys."""
    new = sorted(shared.keys() - locked_keys(connection, sections.c.key, shared))
    if not new:
        return new
    rows = [{"key": key, "body": compressed(shared[key].body)} for key in new]
    insert_missing(connection, sections, rows)
    blobs = ((key, digest) for key in new for digest in blobs_in(shared[key].values()))
    refer_from_sections(connection, blobs)
    return new


def _put_setups(
    connection: Connection,
    added: Sequence[Mapping[str, object]],
    shared: Mapping[str, SharedSection],
    new: Collection[str],
) -> None:
    """Insert setups, and terms of their sections under each name that no setup has had for one."""
    held = {(name, str(key)) for setup in added for name in SHARED if (key := setup[f"{name}_key"])}
    known = _searched(connection, [(name, key) for name, key in sorted(held) if key not in new])
    found: dict[str, list[Term]] = {}
    for name, key in held - known:
        found.setdefault(key, []).extend(terms_of(name, shared[key].values()))
    _put_terms(connection, {term.id: term for each in found.values() for term in each})
    pairs = sorted((term.id, key) for key, each in found.items() for term in each)
    insert_missing(connection, section_terms, [{"term": term, "key": key} for term, key in pairs])
    insert_missing(connection, setups, added)


def _searched(connection: Connection, held: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those names and sections that some setup has, of which there are terms then."""
    found: set[tuple[str, str]] = set()
    by_name = [[key for name, key in held if name == each] for each in SHARED]
    for keys in zip_longest(*by_name):  # most often once
        asked = list(zip(SHARED, keys, strict=True))
        has = connection.execute(_searching(), dict(asked)).one()
        found.update(pair for pair, is_there in zip(asked, has, strict=True) if is_there)
    return found


@cache
def _searching() -> Any:
    columns = {name: setups.c[f"{name}_key"] for name in SHARED}
    return select(*(exists().where(key == bindparam(name)) for name, key in columns.items()))


def _put_terms(connection: Connection, found: Mapping[int, Term]) -> set[int]:
    """Insert terms that are new; gives their numbers."""
    # Those that are there stay while they are locked; see `retention`.
    new = found.keys() - locked_numbers(connection, terms.c.id, found)
    insert_missing(connection, terms, [found[number]._asdict() for number in sorted(new)])
    return new


def put_verdicts(connection: Connection, verdicts: Iterable[tuple[str, Verdict]]) -> None:
    """Keep the verdicts on runs that are there, each in place of the one before it."""
    rows = [
        {"run_id": run_id, "outcome": verdict.outcome, "verdict": pack_verdict(verdict)}
        for run_id, verdict in sorted(verdicts, key=lambda item: item[0])
    ]
    statement = update(runs).where(runs.c.id == bindparam("run_id"))
    connection.execute(statement.values({name: bindparam(name) for name in _VERDICT_COLUMNS}), rows)


def known_sections(
    connection: Connection, wanted: Mapping[str, str], *, project: str | None = None
) -> set[str]:
    """The names of those sections that are kept exactly as their digests say.

    What varies from run to run was taken off others, so they are never found.

    Args:
        connection: In a transaction.
        wanted: The digest of each, by name.
        project: Only what a run of this project refers to.
    """
    keys = {name: section_key_of(wanted[name]) for name in SHARED if name in wanted}
    given = {"keys": [*set(keys.values())]}
    found = set(connection.scalars(_having_key(connection.dialect.name, sections.c.key), given))
    return {
        name
        for name, key in keys.items()
        if key in found and (project is None or _is_in_project(connection, name, key, project))
    }


def get_sections(
    connection: Connection, wanted: Mapping[str, str], *, project: str | None = None
) -> dict[str, bytes]:
    """The canonical bytes of the same, by name.

    Raises:
        DigestMismatch: The bytes of one were changed.
    """
    known = known_sections(connection, wanted, project=project)
    keys = {name: section_key_of(wanted[name]) for name in known}
    statement = _having_key(connection.dialect.name, sections.c.key, sections.c.body)
    rows = connection.execute(statement, {"keys": [*set(keys.values())]})
    bodies = {key: expanded(body) for key, body in rows}
    found = {name: bodies[key] for name, key in keys.items()}
    for name, body in found.items():
        if (digest := digest_bytes(body)) != wanted[name]:
            raise DigestMismatch(wanted[name], digest, "a section in the store")
    return found


@cache
def _having_key(dialect: str, *columns: Column[Any]) -> Select[Any]:
    return select(*columns).where(is_given(dialect, sections.c.key, "keys"))


def project_of(connection: Connection, run_id: str) -> str:
    """The project that a run is in.

    Raises:
        RunNotFound: No run has this id.
    """
    project: str | None = connection.scalar(select(runs.c.project).where(runs.c.id == run_id))
    if project is None:
        raise RunNotFound(run_id, location(connection.engine.url))
    return project


def get_verdict(connection: Connection, run_id: str) -> Verdict | None:
    """The verdict on a run, or None."""
    data = connection.scalar(select(runs.c.verdict).where(runs.c.id == run_id))
    return None if data is None else unpack_verdict(data)


def get_verdicts(connection: Connection, run_ids: Iterable[str]) -> dict[str, Verdict]:
    """The verdicts on these runs, of those that have one."""
    found: dict[str, Verdict] = {}
    for portion in portions(list(run_ids)):
        statement = select(runs.c.id, runs.c.verdict).where(
            runs.c.id.in_(portion), runs.c.verdict.is_not(None)
        )
        for row in connection.execute(statement):
            found[row.id] = unpack_verdict(row.verdict)
    return found


def list_runs(
    connection: Connection,
    *,
    limit: int,
    before: str | None = None,
    project: str | None = None,
    status: str | None = None,
    wanted: Filter | None = None,
) -> list[RunSummary]:
    """The newest runs first, from below `before`."""
    chosen: list[ColumnElement[bool]] = []
    if project is not None:
        chosen.append(runs.c.project == project)
    if status is not None:
        chosen.append(runs.c.status == status)
    return _newest(connection, chosen, limit, before=before, wanted=wanted, project=project)


def find_runs(
    connection: Connection, digits: str, *, limit: int, project: str | None = None
) -> list[RunSummary]:
    """Runs whose id starts with these hexadecimal digits, newest first."""
    lowest, highest = digits.ljust(_HEX_DIGITS, "0"), digits.ljust(_HEX_DIGITS, "f")
    chosen: list[ColumnElement[bool]] = [runs.c.id.between(lowest, highest)]
    if project is not None:
        chosen.append(runs.c.project == project)
    return _newest(connection, chosen, limit)


def list_replays(connection: Connection, run_id: str) -> list[RunSummary]:
    """Replays of a run, newest first."""
    return _newest(connection, [runs.c.replay_of == run_id], None)


def digests(
    connection: Connection, run_ids: Iterable[str], *, project: str | None = None
) -> dict[str, str]:
    """The digest kept for each of these runs that is known."""
    found: dict[str, str] = {}
    for portion in portions(list(run_ids)):
        given = {"ids": portion, "project": project}
        statement = _digests(connection.dialect.name, is_of_project=project is not None)
        rows = connection.execute(statement, given)
        found.update((row.id, row.digest) for row in rows)
    return found


@cache
def _digests(dialect: str, *, is_of_project: bool) -> Select[str, str]:
    statement = select(runs.c.id, runs.c.digest).where(is_given(dialect, runs.c.id, "ids"))
    return statement.where(runs.c.project == bindparam("project")) if is_of_project else statement


def _is_in_project(connection: Connection, name: str, key: str, project: str) -> bool:
    is_referred_to = exists().where(
        setups.c[f"{name}_key"] == key,
        setups.c.project == project,
        runs.c.setup_key == setups.c.key,
    )
    return bool(connection.scalar(select(is_referred_to)))


def _newest(
    connection: Connection,
    chosen: Sequence[ColumnElement[bool]],
    limit: int | None,
    **more: Any,
) -> list[RunSummary]:
    rows = newest_runs(connection, _SUMMARY, chosen, limit=limit, **more)
    # As dictionaries: a mapping of another kind takes three times as long to validate.
    return [RunSummary.model_validate(dict(zip(_LISTED, row, strict=True))) for row in rows]


def _insert_or_replace(connection: Connection, rows: Sequence[dict[str, object]]) -> set[str]:
    """Insert rows; gives the ids of those that were written, as sealed runs never change."""
    dialect = connection.dialect.name
    statement = _inserting_or_replacing(dialect, tuple(rows[0]))
    if dialect == "postgresql":
        return set(execute_many(connection, statement, rows).scalars())
    # Nobody else writes meanwhile, and many rows at once cannot say what came of each.
    ids = {str(row["id"]) for row in rows}
    kept = digests(connection, ids)
    execute_by_column(connection, statement, rows)
    return {run_id for run_id in ids if not kept.get(run_id)}


@cache
def _inserting_or_replacing(dialect: str, names: tuple[str, ...]) -> Any:
    statement = insert_many(dialect, runs, names)
    replaced = {
        column.name: statement.excluded[column.name]
        for column in runs.c
        if column.name not in ("id", *_VERDICT_COLUMNS)
    }
    writing = statement.on_conflict_do_update(
        index_elements=[runs.c.id], set_=replaced, where=runs.c.digest.is_(None)
    )
    return writing.returning(runs.c.id) if dialect == "postgresql" else writing
