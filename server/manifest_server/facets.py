"""Which fields runs have, and how many runs have each value of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    and_,
    case,
    desc,
    exists,
    func,
    or_,
    select,
)

from manifest.filtering import ATTRIBUTES, Field, Filter
from manifest.models import FacetValue
from manifest.summaries import label
from manifest_server.holders import counted, is_held, pairs
from manifest_server.newest import lowest_of
from manifest_server.searching import condition, of_field
from manifest_server.tables import (
    SHARED,
    projects,
    runs,
    section_terms,
    setups,
    terms,
)
from manifest_server.terms import NO_SECTION, scalar

_HIGHEST: Final = "\U0010ffff"


def list_projects(connection: Connection) -> list[str]:
    """The names of all projects, in order."""
    return sorted(connection.scalars(select(projects.c.name)))


def list_fields(
    connection: Connection, prefix: str, *, limit: int, project: str | None = None
) -> list[str]:
    """Fields that begin with a prefix, as filters write them: attributes, then keys in order."""
    attributes = [name for name in ATTRIBUTES if name.startswith(prefix)]
    found = (
        _fields(connection, prefix, limit)
        if project is None
        else _fields_of_project(connection, prefix, limit, project)
    )
    return [*attributes, *(f"{section}.{key}" for section, key in found)][:limit]


def _fields(connection: Connection, prefix: str, limit: int) -> Iterator[tuple[str, str]]:
    """Sections and keys of terms, in order."""
    section, dot, key = prefix.partition(".")
    sections = [section] if dot else _each(connection, terms.c.section, section, limit + 1)
    left = limit
    for name in sections:
        if name != NO_SECTION and left:
            keys = _each(connection, terms.c.key, key, left, terms.c.section == name)
            yield from ((name, each) for each in keys)
            left -= len(keys)


def _each(
    connection: Connection,
    column: Column[str],
    prefix: str,
    limit: int,
    *chosen: ColumnElement[bool],
) -> Sequence[str]:
    """What terms have in a column of their index that begins so, in order.

    From one to the next: of the last that was met there may be hundreds of thousands of terms.
    """
    lowest = label(prefix, len(prefix) + 1)
    left = select(column).where(*chosen, column <= f"{lowest}{_HIGHEST}").order_by(column).limit(1)
    first = left.where(column >= lowest).scalar_subquery()
    found = select(first.label("value")).cte("found", recursive=True)
    # SQLite would begin at the first again if that were said here, too.
    following = left.where(column > found.c.value).scalar_subquery()
    found = found.union_all(select(following).where(found.c.value.is_not(None)))
    met = select(found.c.value).where(found.c.value.is_not(None)).limit(limit)
    return connection.scalars(met).all()


def _fields_of_project(
    connection: Connection, prefix: str, limit: int, project: str
) -> Iterator[tuple[str, str]]:
    section, dot, key = prefix.partition(".")
    statement = select(terms.c.section, terms.c.key).where(terms.c.section != NO_SECTION).distinct()
    if dot:
        statement = statement.where(terms.c.section == section, _begins(terms.c.key, key))
    else:
        statement = statement.where(_begins(terms.c.section, section))
    statement = statement.where(_is_in(connection, project))
    rows = connection.execute(statement.order_by(terms.c.section, terms.c.key).limit(limit))
    yield from ((row.section, row.key) for row in rows)


def count_values(
    connection: Connection,
    field: Field,
    *,
    limit: int,
    project: str | None = None,
    wanted: Filter | None = None,
    newest: int | None = None,
) -> list[FacetValue]:
    """How many runs have each value of a field, the most frequent first.

    Args:
        connection: To the database.
        field: Whose values.
        limit: How many values.
        project: Only runs of this project.
        wanted: Only runs that this filter means.
        newest: Only so many of the newest runs are looked at, however many fit.
    """
    chosen: list[ColumnElement[bool]] = []
    if project is not None:
        chosen.append(runs.c.project == project)
    if newest is not None and (lowest := lowest_of(connection, chosen, newest)) is not None:
        chosen.append(runs.c.id >= lowest)
    if wanted is not None:
        chosen.append(condition(wanted, connection, project).sql)
    if not field.section:
        return _of_column(connection, field.key, chosen, limit)
    if project is not None and len(chosen) == 1:
        chosen = []  # by an index alone, without a look at the runs
    return _of_terms(connection, field, chosen, limit, project)


def _of_column(
    connection: Connection, name: str, chosen: list[ColumnElement[bool]], limit: int
) -> list[FacetValue]:
    column, count = runs.c[name], func.count().label("runs")
    statement = select(column, count).where(column.is_not(None), *chosen).group_by(column)
    rows = connection.execute(statement.order_by(count.desc(), column).limit(limit))
    return [FacetValue(value=value, runs=found) for value, found in rows]


def _of_terms(
    connection: Connection,
    field: Field,
    chosen: list[ColumnElement[bool]],
    limit: int,
    project: str | None,
) -> list[FacetValue]:
    if field.section in SHARED:
        # All runs PostgreSQL counts by several processes, which it does not for each setup.
        is_shared_out = project is None and connection.dialect.name == "postgresql"
        is_by_runs = bool(chosen) or is_shared_out
        ranked = _joined(_shared_of(field, chosen) if is_by_runs else _shared(field, project))
    elif chosen:
        ranked = _joined(_own_of(connection, field, chosen, project))
    else:
        ranked = _own(connection, field, project)
    by_count = ranked.order_by(desc("runs"), ranked.selected_columns.value).limit(limit)
    return [
        FacetValue(value=scalar(row.kind, row.value, row.number), runs=int(row.runs))
        for row in connection.execute(by_count)
    ]


def _joined(by_term: Select[Any]) -> Select[Any]:
    """Values with the runs of their terms."""
    found = by_term.subquery()
    return _ranked(terms, found.c.runs).join(found, found.c.term == terms.c.id)


def _ranked(source: FromClause, count: ColumnElement[Any]) -> Select[Any]:
    kept = [source.c[name] for name in ("kind", "value", "number")]
    found = select(*kept, func.sum(count).label("runs")).select_from(source).group_by(*kept)
    return found.having(func.sum(count) > 0)


def _shared(field: Field, project: str | None) -> Select[Any]:
    # Runs are counted by setup, as there are thousands to one, of those setups that have a value;
    # for each only once, however many values it has. Joined to what it holds, counts would be made
    # again for each pair, or compared with all, by a database that expects few.
    placed = (
        select(
            section_terms.c.term,
            setups.c.key,
            func.row_number().over(partition_by=setups.c.key).label("place"),
        )
        .join(setups, setups.c[f"{field.section}_key"] == section_terms.c.key)
        .where(section_terms.c.term.in_(of_field(field)))
    )
    if project is not None:
        placed = placed.where(setups.c.project == project)
    each = placed.subquery()
    count = select(func.count()).where(runs.c.setup_key == each.c.key).scalar_subquery()
    once = func.max(case((each.c.place == 1, count))).over(partition_by=each.c.key)
    spread = select(each.c.term, once.label("runs")).subquery()
    return select(spread.c.term, func.sum(spread.c.runs).label("runs")).group_by(spread.c.term)


def _shared_of(field: Field, chosen: list[ColumnElement[bool]]) -> Select[Any]:
    # Of the runs that are chosen, too, those of a setup are counted once.
    key = runs.c.setup_key
    by_setup = (
        select(key.label("key"), func.count().label("runs"))
        .where(key.is_not(None), *chosen)
        .group_by(key)
        .cte("by_setup")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    return (
        select(section_terms.c.term, by_setup.c.runs)
        .join_from(by_setup, setups, setups.c.key == by_setup.c.key)
        .join(section_terms, section_terms.c.key == setups.c[f"{field.section}_key"])
        .where(section_terms.c.term.in_(of_field(field)))
    )


def _own(connection: Connection, field: Field, project: str | None) -> Select[Any]:
    # With one look at each term: most may be of one run, and there may be thousands.
    statement = of_field(field, project).add_columns(terms.c.kind, terms.c.value, terms.c.number)
    if connection.dialect.name == "sqlite":
        # In the order in which their runs lie, which takes it half the time; without a limit it
        # takes the order for needless.
        statement = statement.order_by(terms.c.id).limit(-1)
    each = statement.cte("each").prefix_with("MATERIALIZED", dialect="sqlite")
    held = counted(connection, each).subquery()
    return _ranked(held, held.c.runs)


def _own_of(
    connection: Connection,
    field: Field,
    chosen: list[ColumnElement[bool]],
    project: str | None,
) -> Select[Any]:
    held = pairs(connection, of_field(field, project)).subquery()
    return (
        select(held.c.term, func.count().label("runs"))
        .join_from(held, runs, runs.c.id == held.c.run_id)
        .where(*chosen)
        .group_by(held.c.term)
    )


def _is_in(connection: Connection, project: str) -> ColumnElement[bool]:
    """Whether any run of a project has a term, its own or of a section that runs share."""
    own = and_(terms.c.project == project, is_held(connection, terms.c.id))
    shared = [
        exists().where(
            terms.c.section == name,
            section_terms.c.term == terms.c.id,
            setups.c[f"{name}_key"] == section_terms.c.key,
            setups.c.project == project,
            runs.c.setup_key == setups.c.key,
        )
        for name in SHARED
    ]
    return or_(own, *shared)


def _begins(column: ColumnElement[Any], prefix: str) -> ColumnElement[bool]:
    kept = label(prefix, len(prefix) + 1)  # as the texts that it is compared with
    return column.between(kept, f"{kept}{_HIGHEST}")
