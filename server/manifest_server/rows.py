"""Insert rows, and ask for many at once, in each database's own words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    CursorResult,
    Dialect,
    Insert,
    Select,
    Table,
    TableValuedAlias,
    Text,
    any_,
    bindparam,
    cast,
    column,
    func,
    literal,
    select,
    type_coerce,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.sql.dml import ReturningInsert
from sqlalchemy.types import TypeEngine

from manifest_server.tables import Numbers, RunKeys

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
    if not rows:
        return
    names = tuple(column.name for column in table.c if column.name in rows[0])
    statement = _inserting_missing(connection.dialect.name, table, names)
    if connection.dialect.name == "postgresql":
        execute_many(connection, statement, rows)
    else:
        execute_by_column(connection, statement, rows)


def execute_by_column(
    connection: Connection, statement: Insert, rows: Sequence[Mapping[str, object]]
) -> None:
    """Insert rows, all of which have the same columns, into SQLite.

    As SQLAlchemy would, but column by column: it makes a dictionary or two for each row.

    Args:
        connection: In a transaction that writes.
        statement: An INSERT that is made once and kept.
        rows: One at least.
    """
    text, processors = _prepared(connection.dialect, statement, tuple(rows[0]))
    columns = [
        [row[name] for row in rows] if process is None else [process(row[name]) for row in rows]
        for name, process in processors.items()
    ]
    connection.exec_driver_sql(text, [*zip(*columns, strict=True)])


@lru_cache
def _prepared(
    dialect: Dialect, statement: Insert, names: tuple[str, ...]
) -> tuple[str, dict[str, Callable[[Any], Any] | None]]:
    """An INSERT as its driver takes it, and what makes a parameter of a value, by column."""
    compiled: Any = statement.compile(dialect=dialect, column_keys=names)
    types = {
        name: statement.table.c[name].type.dialect_impl(dialect) for name in compiled.positiontup
    }
    return str(compiled), {name: type_.bind_processor(dialect) for name, type_ in types.items()}


@cache
def _inserting_missing(dialect: str, table: Table, names: tuple[str, ...]) -> Insert:
    # Making a statement costs more than SQLite takes to run it.
    return insert_many(dialect, table, names).on_conflict_do_nothing()


def copy_missing(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, object]]
) -> bool:
    """Insert rows of many bytes, none of which was there a moment ago.

    Returns:
        Whether all are of this transaction; of those that another writer was first with none is
        locked.
    """
    if connection.dialect.name != "postgresql":
        insert_missing(connection, table, rows)  # one writer at a time
        return True
    try:
        with connection.begin_nested():
            _copy(connection, table, rows)
    except IntegrityError:  # COPY takes all or nothing
        insert_missing(connection, table, rows)
        return False
    return True


def _copy(connection: Connection, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert rows with COPY: PostgreSQL works on each while the next is on its way."""
    dialect, columns = connection.dialect, [table.c[name] for name in rows[0]]
    types = [column.type.dialect_impl(dialect) for column in columns]
    to_driver = [type_.bind_processor(dialect) or _unchanged for type_ in types]
    names = ", ".join(column.name for column in columns)
    statement = f"COPY {table.name} ({names}) FROM STDIN (FORMAT BINARY)"
    driver: Any = connection.connection.driver_connection
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types([type_.compile(dialect).lower() for type_ in types])
            for row in rows:
                copy.write_row([to(row[c.name]) for to, c in zip(to_driver, columns, strict=True)])
    except dialect.loaded_dbapi.Error as error:
        # What the driver is asked by itself it answers in words of its own.
        raise DBAPIError.instance(
            statement, None, error, dialect.loaded_dbapi.Error, dialect=dialect
        ) from error


def _unchanged(value: object) -> object:
    return value


def insert_many(
    dialect: str, table: Table, names: Sequence[str]
) -> sqlite.Insert | postgresql.Insert:
    """An INSERT of any number of rows, for `execute_many`."""
    if dialect != "postgresql":
        return insert(dialect, table)
    # One statement, with an array for each column: PostgreSQL plans every statement that it is
    # sent, which costs it more than a row does.
    arrays = func.unnest(*(bindparam(name, type_=ARRAY(_element(table, name))) for name in names))
    found = arrays.table_valued(*names).render_derived()
    # It takes an array of arrays for one long array, so that these come as text.
    columns = [
        cast(found.c[name], table.c[name].type) if _is_array(table, name) else found.c[name]
        for name in names
    ]
    return insert(dialect, table).from_select(names, select(*columns))


def _is_array(table: Table, name: str) -> bool:
    return isinstance(table.c[name].type, (RunKeys, Numbers))


def _element(table: Table, name: str) -> TypeEngine[Any]:
    return Text() if _is_array(table, name) else table.c[name].type


def execute_many(
    connection: Connection,
    statement: Insert | ReturningInsert[Any],
    rows: Sequence[Mapping[str, object]],
) -> CursorResult[Any]:
    """Insert rows, all of which have the same columns."""
    if connection.dialect.name != "postgresql":
        return connection.execute(statement, rows)
    arrays = {
        name: [
            f"{{{','.join(map(str, value))}}}" if isinstance(value, list) else value
            for value in (row[name] for row in rows)
        ]
        for name in rows[0]
    }
    return connection.execute(statement, arrays)


def locked_keys(connection: Connection, column: Column[Any], keys: Iterable[str]) -> set[str]:
    """Those keys that are there.

    They are locked, so that whoever collects them leaves them alone until what refers to them is
    there too.
    """
    found: set[str] = set()
    for portion in portions(sorted(keys)):
        statement = _locking_keys(connection.dialect.name, column)
        found.update(connection.scalars(statement, {"keys": portion}))
    return found


@cache
def _locking_keys(dialect: str, column: Column[Any]) -> Select[str]:
    statement = select(column).where(is_given(dialect, column, "keys")).order_by(column)
    return statement.with_for_update(read=True, key_share=True)


def is_one_of(
    dialect: str, column: ColumnElement[Any], values: Sequence[Any]
) -> ColumnElement[bool]:
    """Whether a column has one of these values."""
    if dialect == "postgresql":  # as hundreds of parameters take longer to send than to look for
        return column == any_(literal(values, ARRAY(column.type)))
    return column.in_(values)


def is_given(dialect: str, column: Column[Any], name: str) -> ColumnElement[bool]:
    """The same of values that are given later, to a statement that is made once."""
    if dialect == "postgresql":
        return column == any_(bindparam(name, type_=ARRAY(column.type)))
    return column.in_(bindparam(name, expanding=True))


def locked_numbers(connection: Connection, column: Column[int], numbers: Iterable[int]) -> set[int]:
    """The same of numbers, of which there may be thousands."""
    wanted = sorted(numbers)
    if not wanted:
        return set()
    dialect = connection.dialect.name
    given = {"numbers": as_given(dialect, wanted)}
    return set(connection.scalar(_locking_numbers(dialect, column), given) or ())


@cache
def _locking_numbers(dialect: str, column: Column[int]) -> Select[list[int]]:
    if dialect == "postgresql":
        is_wanted = column == any_(bindparam("numbers", type_=ARRAY(column.type)))
    else:
        is_wanted = column.in_(select(given_numbers(dialect, "numbers").c.value))
    locking = select(column).where(is_wanted).order_by(column)
    return _together(dialect, locking.with_for_update(read=True, key_share=True))


def given_numbers(dialect: str, name: str) -> TableValuedAlias:
    """Numbers that are given as one parameter, as a table.

    A statement with a parameter for each has to be written anew for every number of them.
    """
    value = column("value", BigInteger)
    if dialect == "postgresql":
        given = func.unnest(bindparam(name, type_=ARRAY(BigInteger)))
        return given.table_valued(value).render_derived()
    return func.json_each(bindparam(name)).table_valued(value)


def as_given(dialect: str, numbers: Sequence[int]) -> object:
    """What `given_numbers` is given."""
    return list(numbers) if dialect == "postgresql" else json.dumps(list(numbers))


def found_numbers(connection: Connection, statement: Select[int]) -> list[int]:
    """The numbers that a statement finds, in any order."""
    return connection.scalar(_together(connection.dialect.name, statement)) or []


def _together(dialect: str, statement: Select[int]) -> Select[list[int]]:
    """The numbers that a statement finds as one value, as rows take several times as long."""
    together = func.array_agg if dialect == "postgresql" else func.json_group_array
    return select(type_coerce(together(statement.subquery().c[0]), Numbers))


def portions(items: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut what is asked for, as no database takes any number of parameters."""
    for start in range(0, len(items), _PORTION):
        yield items[start : start + _PORTION]
