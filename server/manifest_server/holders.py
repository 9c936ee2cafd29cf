"""Which runs have a term: gathered, as a row for each would be most of a database.

Runs that come together add a row for each of their terms and touch no other, so writers never wait
for each other. Now and then a writer puts the rows of a term together, some sixty runs to a row.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, partial
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    LargeBinary,
    Select,
    any_,
    bindparam,
    case,
    delete,
    desc,
    func,
    insert,
    intersect,
    literal,
    not_,
    or_,
    select,
    true,
    type_coerce,
)
from sqlalchemy.sql.dml import ReturningDelete

from manifest_server.rows import as_given, given_numbers, insert_missing, is_given
from manifest_server.tables import RunKey, run_terms, terms
from manifest_server.terms import Term

MOST_TOGETHER: Final = 61
"""Runs of a row: what SQLite keeps on one page, four rows to each."""

_TURN: Final = 64
_LOOKED_AT: Final = 2 * MOST_TOGETHER
_WORTH_IT: Final = 8
_AT_ONCE: Final = 20
_KEY_BYTES: Final = 16
_PLACES: Final = str(list(range(MOST_TOGETHER)))
_LOWEST: Final = "0" * 32
_HIGHEST: Final = "f" * 32
_older = run_terms.c.older


def put_run_terms(connection: Connection, pairs: Sequence[tuple[str, Term]]) -> None:
    """Say that runs have terms, which they had not before."""
    run_ids: dict[int, list[str]] = {}
    for run_id, term in pairs:
        run_ids.setdefault(term.id, []).append(run_id)
    rows = [row for number in sorted(run_ids) for row in _rows(number, run_ids[number])]
    insert_missing(connection, run_terms, rows)
    gather(connection, {row["term"] for row in rows if _is_turn(row["term"], row["run_id"])})


def drop_run_terms(connection: Connection, pairs: Iterable[tuple[str, int]]) -> None:
    """Say that runs have terms no more, by their numbers."""
    for number, run_id in sorted((number, run_id) for run_id, number in pairs):
        # Nobody else puts rows of this term together until the transaction ends.
        connection.execute(select(terms.c.id).where(terms.c.id == number).with_for_update())
        is_of_term = run_terms.c.term == number
        found = _pairs(connection, is_of_term, run_terms.c.run_id >= run_id).subquery()
        statement = select(found.c.row).where(found.c.run_id == run_id).order_by(found.c.row)
        key = connection.scalar(statement.limit(1))
        if key is None:
            continue
        row = is_of_term & (run_terms.c.run_id == key)
        others = [*(connection.scalar(select(_older).where(row)) or ()), key]
        connection.execute(delete(run_terms).where(row))
        others.remove(run_id)
        if others:
            connection.execute(insert(run_terms), [*_rows(number, others)])


def gather(connection: Connection, numbers: Iterable[int], *, most_rows: int = _LOOKED_AT) -> int:
    """Put rows of terms together; gives how many there are less.

    Args:
        connection: In a transaction that writes.
        numbers: Of the terms.
        most_rows: How many of each are looked at, the newest first.
    """
    chosen = sorted(numbers)
    if not chosen:
        return 0
    locked = connection.scalars(_locking(connection.dialect.name), {"numbers": chosen}).all()
    gathered: list[dict[str, object]] = []
    count = sum(_take(connection, number, most_rows, gathered) for number in locked)
    if gathered:
        connection.execute(insert(run_terms), gathered)
    return count - len(gathered)


def scattered(connection: Connection, *, after: int | None) -> Sequence[int]:
    """Some terms that have many rows of a single run each, from beyond a number on."""
    count = func.count()
    statement = select(run_terms.c.term).where(_older.is_(None)).group_by(run_terms.c.term)
    if after is not None:
        statement = statement.where(run_terms.c.term > after)
    statement = statement.having(count >= _TURN).order_by(run_terms.c.term).limit(_AT_ONCE)
    return connection.scalars(statement).all()


def pairs(connection: Connection, *chosen: ColumnElement[bool]) -> Select[tuple[int, str]]:
    """Terms and the runs that have them, from the rows of `run_terms` of which this holds."""
    found = _pairs(connection, *chosen)
    term, run_id, _ = found.selected_columns
    return found.with_only_columns(term, run_id)


def holders(connection: Connection, *chosen: ColumnElement[bool]) -> Select[tuple[str]]:
    """The ids of the runs alone; of rows with an id below that of a run, none is the run's."""
    found = _pairs(connection, *chosen)
    return found.with_only_columns(found.selected_columns.run_id)


def lowest_row(
    connection: Connection, numbers: Sequence[int], count: int, *, before: str | None = None
) -> str | None:
    """An id that at most so many rows of each term lie beyond; None where no term has more.

    Args:
        connection: In a transaction.
        numbers: Of the terms.
        count: How many rows of each.
        before: Only rows with a run that is older.
    """
    dialect = connection.dialect.name
    given = {"numbers_0": as_given(dialect, numbers), "count": count, "before": before or _HIGHEST}
    lowest: str | None = connection.scalar(_lowest_row(dialect), given)
    return lowest


def newest_holders(
    connection: Connection,
    held: Sequence[Sequence[int]],
    *,
    limit: int,
    lowest: str | None = None,
    before: str | None = None,
) -> list[str]:
    """The newest runs that have a term of each of these, newest first.

    Args:
        connection: In a transaction.
        held: Terms, by what they are meant for.
        limit: How many runs; one that has several terms may count as often.
        lowest: None that is older.
        before: All are older.
    """
    dialect = connection.dialect.name
    given = {f"numbers_{n}": as_given(dialect, numbers) for n, numbers in enumerate(held)}
    given |= {"limit": limit, "lowest": lowest or _LOWEST, "before": before or _HIGHEST}
    return list(connection.scalars(_newest_holders(dialect, len(held)), given))


def having(connection: Connection, numbers: Sequence[int], run_ids: Sequence[str]) -> set[str]:
    """Those of some runs that have one of the terms.

    However many runs have the terms, only rows that one of these may be in are taken apart.
    """
    if not run_ids:
        return set()
    ordered, dialect = sorted(run_ids), connection.dialect.name
    given = {"numbers_0": as_given(dialect, numbers), "lowest": ordered[0]}
    if dialect == "postgresql":
        return set(connection.scalars(_having(), {**given, "run_ids": ordered}))
    keys = [bytes.fromhex(each.replace("-", "")) for each in ordered]
    found = _found(keys, connection.execute(_bare_rows(), given))
    return {run_id for run_id, key in zip(ordered, keys, strict=True) if key in found}


def has_one(connection: Connection, numbers: Sequence[int]) -> ColumnElement[bool]:
    """Whether a row of `run_terms` is of one of these terms."""
    term = run_terms.c.term
    if connection.dialect.name == "postgresql" and len(numbers) > 1:
        # One parameter, as hundreds take longer to send than to look for.
        return term == any_(literal(numbers, ARRAY(term.type)))
    return term.in_(numbers)


def counted(connection: Connection) -> ColumnElement[int]:
    """How many runs the rows of a term are about, together."""
    return func.sum(_count(_older, connection.dialect.name))


def _is_turn(number: int, run_id: str) -> bool:
    """Whether a row is the one in so many at which those of its term are gathered."""
    return (number ^ int(run_id[-4:], 16)) % _TURN == 0


@cache
def _locking(dialect: str) -> Select[int]:
    wanted = select(terms.c.id).where(is_given(dialect, terms.c.id, "numbers"))
    # A term that somebody else gathers, or drops runs of, has its turn another time.
    return wanted.order_by(terms.c.id).with_for_update(skip_locked=True)


@cache
def _taking(dialect: str) -> ReturningDelete[str, list[str] | None]:
    """Delete what is not full of the newest rows of a term, where that is worth it."""
    is_of_term = run_terms.c.term == bindparam("term")
    rows = select(run_terms.c.run_id, _older).where(is_of_term).order_by(run_terms.c.run_id.desc())
    newest = rows.limit(bindparam("most_rows")).subquery()
    is_full = _count(newest.c.older, dialect) >= MOST_TOGETHER
    found = select(newest.c.run_id).where(not_(is_full)).cte()
    is_worth_it = select(func.count()).select_from(found).scalar_subquery() >= _WORTH_IT
    taken = delete(run_terms).where(
        is_of_term, is_worth_it, run_terms.c.run_id.in_(select(found.c.run_id))
    )
    return taken.returning(run_terms.c.run_id, _older)


def _count(older: ColumnElement[Any], dialect: str) -> ColumnElement[int]:
    """Of how many runs a row is."""
    if dialect == "postgresql":
        return 1 + func.coalesce(func.cardinality(older), 0)
    return 1 + func.coalesce(func.length(older, type_=Integer), 0) // _KEY_BYTES


def _take(
    connection: Connection, number: int, most_rows: int, gathered: list[dict[str, object]]
) -> int:
    """Delete the rows of a term that are not full, and add what is to be in their place."""
    given = {"term": number, "most_rows": most_rows}
    rows = connection.execute(_taking(connection.dialect.name), given).all()
    gathered += _rows(number, (id_ for row in rows for id_ in (row.run_id, *(row.older or ()))))
    return len(rows)


def _rows(number: int, run_ids: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Rows of a term that these runs have, from the oldest runs on."""
    found = sorted(run_ids)
    for start in range(0, len(found), MOST_TOGETHER):
        *older, newest = found[start : start + MOST_TOGETHER]
        yield {"term": number, "run_id": newest, "older": older or None}


@cache
def _lowest_row(dialect: str) -> Select[Any]:
    each = given_numbers(dialect, "numbers_0")
    before = bindparam("before", type_=run_terms.c.run_id.type)
    of_term = select(run_terms.c.run_id).where(
        run_terms.c.term == each.c.value, _oldest(dialect) < before
    )
    last = of_term.order_by(run_terms.c.run_id.desc()).offset(bindparam("count")).limit(1)
    statement = select(last.scalar_subquery().label("last")).select_from(each)
    return statement.order_by(desc("last").nulls_last()).limit(1)


@cache
def _newest_holders(dialect: str, count: int) -> Select[tuple[str]]:
    id_type = run_terms.c.run_id.type
    lowest, before = (bindparam(name, type_=id_type) for name in ("lowest", "before"))
    each = []
    for place in range(count):
        has_one = run_terms.c.term.in_(select(given_numbers(dialect, f"numbers_{place}").c.value))
        rows = has_one, run_terms.c.run_id >= lowest, _oldest(dialect) < before
        found = _expanded(dialect, *rows).subquery()
        between = found.c.run_id >= lowest, found.c.run_id < before
        each.append(select(found.c.run_id).where(*between))
    found = (each[0] if count == 1 else intersect(*each)).subquery()
    newest_first = select(found.c.run_id).order_by(found.c.run_id.desc())
    return newest_first.limit(bindparam("limit"))


@cache
def _having() -> Select[tuple[str]]:
    """For PostgreSQL, where an array comes to Python as one object for each run."""
    newest = run_terms.c.run_id
    run_ids = bindparam("run_ids", type_=ARRAY(newest.type))
    oldest = _oldest("postgresql")
    count_to = partial(func.width_bucket, type_=BigInteger)  # of the runs, which are in order
    may_have = or_(count_to(newest, run_ids) > count_to(oldest, run_ids), oldest == any_(run_ids))
    rows = _expanded("postgresql", *_from_lowest("postgresql"), may_have).subquery()
    return select(rows.c.run_id).where(rows.c.run_id == any_(run_ids))


@cache
def _bare_rows() -> Select[bytes, bytes]:
    """For SQLite, where a row comes to Python as the bytes that it is."""
    newest, older = (type_coerce(each, LargeBinary) for each in (run_terms.c.run_id, _older))
    return select(newest, older).where(*_from_lowest("sqlite"))


def _from_lowest(dialect: str) -> tuple[ColumnElement[bool], ...]:
    newest = run_terms.c.run_id
    has_one = run_terms.c.term.in_(select(given_numbers(dialect, "numbers_0").c.value))
    return has_one, newest >= bindparam("lowest", type_=newest.type)


def _found(keys: Sequence[bytes], rows: Iterable[Any]) -> set[bytes]:
    """Those of some keys, in order, that are in the rows."""
    found: set[bytes] = set()
    for newest, older in rows:
        start = bisect_left(keys, older[:_KEY_BYTES] if older else newest)
        near = keys[start : bisect_right(keys, newest, start)]
        if near:
            places = range(0, len(older or b""), _KEY_BYTES)
            each = {newest, *((older or b"")[place : place + _KEY_BYTES] for place in places)}
            found.update(each.intersection(near))
    return found


def _oldest(dialect: str) -> ColumnElement[str]:
    """The oldest run of a row."""
    newest = run_terms.c.run_id
    if dialect == "postgresql":
        first: ColumnElement[Any] = type_coerce(_older, ARRAY(newest.type))[1]
    else:
        first = func.substr(_older, 1, _KEY_BYTES)
    return type_coerce(func.coalesce(first, newest), newest.type)


def _pairs(connection: Connection, *chosen: ColumnElement[bool]) -> Select[Any]:
    return _expanded(connection.dialect.name, *chosen)


def _expanded(dialect: str, *chosen: ColumnElement[bool]) -> Select[Any]:
    term, newest = run_terms.c.term, run_terms.c.run_id
    if dialect == "postgresql":
        each = func.unnest(func.array_append(_older, newest), type_=newest.type)
        return select(term, each.label("run_id"), newest.label("row")).where(*chosen)
    # That the places depend on the row keeps SQLite from beginning with them.
    listed = case((_older.is_(None), "[0]"), else_=_PLACES)
    place = func.json_each(listed).table_valued("value")
    start = place.c.value * _KEY_BYTES
    run = case((place.c.value == 0, newest), else_=func.substr(_older, start - 15, _KEY_BYTES))
    return (
        select(term, type_coerce(run, RunKey).label("run_id"), newest.label("row"))
        .join_from(run_terms, place, true())
        .where(or_(_older.is_(None), start <= func.length(_older)), *chosen)
    )
