"""Insert rows, and ask for many at once, in each database's own words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Column, Connection, Insert, Table, select

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

_PORTION: Final = 1000  # parameters of one IN, well below every database's limit


def insert(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that can say what is to be done where a row is there already."""
    # Each is large to import, and a process works with one of them.
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as insert_in_postgresql

        return insert_in_postgresql(table)
    from sqlalchemy.dialects.sqlite import insert as insert_in_sqlite

    return insert_in_sqlite(table)


def insert_missing(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, object]]
) -> None:
    """Insert the rows whose key is not there yet."""
    if rows:
        connection.execute(_inserting_missing(connection.dialect.name, table), rows)


@cache
def _inserting_missing(dialect: str, table: Table) -> Insert:
    # Making a statement costs more than SQLite takes to run it.
    return insert(dialect, table).on_conflict_do_nothing()


def locked_keys(connection: Connection, column: Column[Any], keys: Iterable[str]) -> set[str]:
    """Those keys that are there.

    They are locked, so that whoever collects them leaves them alone until what refers to them is
    there too.
    """
    found: set[str] = set()
    for portion in portions(sorted(keys)):
        statement = select(column).where(column.in_(portion)).order_by(column)
        found.update(connection.scalars(statement.with_for_update(read=True, key_share=True)))
    return found


def portions(items: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut what is asked for, as no database takes any number of parameters."""
    for start in range(0, len(items), _PORTION):
        yield items[start : start + _PORTION]
