"""How many of the newest runs have each value of their attributes: all are counted in one pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, desc, exists, func, select

from manifest.filtering import Filter
from manifest.models import FacetValue, RunSummary
from manifest_server.holders import newest_holders
from manifest_server.newest import BELOW_ALL, has_numbers, is_one, lowest_of
from manifest_server.parts import LOWEST
from manifest_server.rows import portions
from manifest_server.searching import conditions
from manifest_server.tables import projects, runs


def tally(
    connection: Connection,
    names: Sequence[str],
    *,
    newest: int,
    limit: int,
    project: str | None = None,
    wanted: Filter | None = None,
) -> dict[str, list[FacetValue]]:
    """Values of attributes with the runs that have them, the most frequent first.

    Args:
        connection: In a transaction.
        names: The attributes.
        newest: How many of the newest runs are looked at, however many of them fit.
        limit: How many values of each.
        project: Only runs of this project.
        wanted: Only runs that this filter means.
    """
    chosen = [] if project is None else [runs.c.project == project]
    lowest = lowest_of(connection, chosen, newest) or BELOW_ALL
    statement = select(*(runs.c[name] for name in names)).where(runs.c.id >= lowest, *chosen)
    parts = [] if wanted is None else conditions(wanted, connection, project, most=0)
    held = [each.terms for each in parts if each.terms is not None]
    if len(held) > 1:  # apart, as PostgreSQL does not expect how few have several terms
        ids = newest_holders(connection, held, limit=newest, lowest=lowest)
        statement = statement.where(is_one(connection, ids))
        parts = [each for each in parts if each.terms is None]
    numbers = [each.numbers for each in parts if each.numbers is not None]
    statement = statement.where(*(each.walked for each in parts if each.numbers is None))
    if numbers:  # looking up all values of a range takes longer than reading so many documents
        statement = statement.add_columns(runs.c.document).where(runs.c.digest.is_not(None))
    rows: Iterable[Sequence[Any]] = connection.execute(statement, {LOWEST: lowest})
    if numbers:
        rows = (row for row in rows if has_numbers(row[-1], numbers))
    # Not by the database: sorting for three groupings takes SQLite longer than handing over.
    columns = zip(*rows, strict=True)
    counted = dict(zip(names, columns, strict=False))
    return {name: _most_frequent(counted.get(name, ()), limit) for name in names}


def tally_projects(
    connection: Connection, *, limit: int, project: str | None = None
) -> list[tuple[int, RunSummary]]:
    """How many runs each project has, and the newest of them; the project with most runs first."""
    of_project = runs.c.project == projects.c.name
    count = select(func.count()).where(of_project).scalar_subquery()
    newest = select(runs.c.id).where(of_project).order_by(runs.c.id.desc()).limit(1)
    statement = select(count.label("runs"), newest.scalar_subquery().label("newest"))
    statement = statement.select_from(projects).where(exists().where(of_project))
    if project is not None:
        statement = statement.where(projects.c.name == project)
    by_count = statement.order_by(desc("runs"), projects.c.name).limit(limit)
    found = connection.execute(by_count).all()
    columns = [runs.c[name] for name in RunSummary.model_fields]
    summaries: dict[str, RunSummary] = {}
    for portion in portions([row.newest for row in found]):
        rows = connection.execute(select(*columns).where(runs.c.id.in_(portion))).mappings()
        summaries |= {row["id"]: RunSummary.model_validate(row) for row in rows}
    return [(row.runs, summaries[row.newest]) for row in found]


def _most_frequent(values: Iterable[Any], limit: int) -> list[FacetValue]:
    counts = Counter(value for value in values if value is not None)
    found = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [FacetValue(value=value, runs=count) for value, count in found[:limit]]
