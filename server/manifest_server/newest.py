"""The newest runs that a filter means, found from the end where there are fewest.

What many runs have is soon found among the newest; what few have is found by its index. A database
takes one way for all, and is slow where it should have taken the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, literal, select

from manifest.filtering import Filter
from manifest_server.searching import LOWEST, Condition, conditions
from manifest_server.tables import runs

_FEW: Final = 1000
_WALKS: Final = (500, 4000, 20_000)
"""How many of the newest runs are looked at: before it is asked whether there are few, and then."""
BELOW_ALL: Final = "0" * 32
"""An id that every run is beyond."""


def newest_runs(
    connection: Connection,
    columns: Sequence[ColumnElement[Any]],
    chosen: Sequence[ColumnElement[bool]],
    *,
    limit: int | None,
    wanted: Filter | None = None,
    project: str | None = None,
) -> Sequence[RowMapping]:
    """Columns of the newest runs, newest first.

    Args:
        connection: In a transaction.
        columns: What is asked of each.
        chosen: What holds of them, and has an index that ends in the id.
        limit: How many.
        wanted: What else holds of them.
        project: The only one that they are of, as `chosen` says; it can be walked to its end.
    """
    statement = select(*columns).order_by(runs.c.id.desc()).limit(limit).where(*chosen)
    if wanted is None:
        return connection.execute(statement).mappings().all()
    parts = conditions(wanted, connection, project)
    if any(each.is_never for each in parts):
        return []
    for count in _WALKS:
        lowest = lowest_of(connection, chosen, count)
        newest = statement if lowest is None else statement.where(runs.c.id >= lowest)
        found = _walk(connection, newest, parts, [lowest or BELOW_ALL])
        if lowest is None or len(found) == limit:
            return found
        if count == _WALKS[0] and (few := _few(connection, parts)) is not None:
            return _walk(connection, statement.where(runs.c.id.in_(few)), parts, few[-1:])
    if project is not None:
        return _walk(connection, statement, parts, [BELOW_ALL])
    return connection.execute(statement.where(*(each.sql for each in parts))).mappings().all()


def _few(connection: Connection, parts: Sequence[Condition]) -> list[str] | None:
    """The few runs that one part of a filter leaves, newest first, if there is such a part."""
    for each in parts:
        if each.holders is None:
            continue
        # Asked for what is beyond them first: most are many, and take time to fetch. And not for
        # ids, which an index need not have.
        beyond = select(literal(1)).select_from(each.holders.subquery())
        if connection.scalar(beyond.offset(_FEW).limit(1)) is None:
            return sorted(set(connection.scalars(each.holders)), reverse=True)
    return None


def _walk(
    connection: Connection,
    statement: Select[Any],
    parts: Sequence[Condition],
    lowest: Sequence[str],
) -> Sequence[RowMapping]:
    """Look at runs one after the other, none below the lowest; there may be none at all."""
    if not lowest:
        return []
    walked = statement.where(*(each.walked for each in parts))
    return connection.execute(walked, {LOWEST: lowest[0]}).mappings().all()


def lowest_of(
    connection: Connection, chosen: Sequence[ColumnElement[bool]], count: int
) -> str | None:
    """The last of so many runs, the newest first; None where there are fewer."""
    statement = select(runs.c.id).where(*chosen).order_by(runs.c.id.desc())
    return connection.scalar(statement.offset(count - 1).limit(1))
