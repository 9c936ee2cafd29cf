"""Which runs have a term: gathered, as a row for each would be most of a database.

A run that comes adds a row for each of its terms and touches no other, so writers never wait for
each other. Now and then a writer puts the rows of a term together, some sixty to a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    bindparam,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    true,
    type_coerce,
)

from manifest_server.rows import insert_missing
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
_older = run_terms.c.older


def put_run_terms(connection: Connection, pairs: Sequence[tuple[str, Term]]) -> None:
    """Say that runs have terms, which they had not before."""
    numbers = sorted((term.id, run_id) for run_id, term in pairs)
    rows = [{"term": number, "run_id": run_id} for number, run_id in numbers]
    insert_missing(connection, run_terms, rows)
    gather(connection, {number for number, run_id in numbers if _is_turn(number, run_id)})


def drop_run_terms(connection: Connection, run_id: str, numbers: Iterable[int]) -> None:
    """Say that a run has these terms no more."""
    for number in sorted(numbers):
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
            connection.execute(insert(run_terms), _row(number, others))


def gather(connection: Connection, numbers: Iterable[int], *, most_rows: int = _LOOKED_AT) -> int:
    """Put rows of terms together; gives how many there are less.

    Args:
        connection: In a transaction that writes.
        numbers: Of the terms.
        most_rows: How many of each are looked at, the newest first.
    """
    wanted = select(terms.c.id).where(terms.c.id.in_(sorted(numbers))).order_by(terms.c.id)
    # A term that somebody else gathers, or drops runs of, has its turn another time.
    locked = connection.scalars(wanted.with_for_update(skip_locked=True)).all()
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


def counted(connection: Connection) -> ColumnElement[int]:
    """How many runs the rows of a term are about, together."""
    if connection.dialect.name == "postgresql":
        return func.sum(1 + func.coalesce(func.cardinality(_older), 0))
    return func.sum(1 + func.coalesce(func.length(_older), 0) / _KEY_BYTES)


def _is_turn(number: int, run_id: str) -> bool:
    """Whether a run is the one in so many that has the rows of a term gathered."""
    return (number ^ int(run_id[-4:], 16)) % _TURN == 0


# Made once: making a statement takes longer than running it.
_term = run_terms.c.term == bindparam("term")
_newest = (
    select(run_terms.c.run_id, _older)
    .where(_term)
    .order_by(run_terms.c.run_id.desc())
    .limit(bindparam("most_rows"))
)
_taking = delete(run_terms).where(_term, run_terms.c.run_id.in_(bindparam("keys", expanding=True)))


def _take(
    connection: Connection, number: int, most_rows: int, gathered: list[dict[str, object]]
) -> int:
    """Delete the rows of a term that are not full, and add what is to be in their place."""
    newest = connection.execute(_newest, {"term": number, "most_rows": most_rows})
    rows = [row for row in newest if len(row.older or ()) + 1 < MOST_TOGETHER]
    if len(rows) < _WORTH_IT:
        return 0
    connection.execute(_taking, {"term": number, "keys": [row.run_id for row in rows]})
    found = sorted(run_id for row in rows for run_id in (row.run_id, *(row.older or ())))
    starts = range(0, len(found), MOST_TOGETHER)
    gathered += [_row(number, found[start : start + MOST_TOGETHER]) for start in starts]
    return len(rows)


def _row(number: int, run_ids: Iterable[str]) -> dict[str, object]:
    *older, newest = sorted(run_ids)
    return {"term": number, "run_id": newest, "older": older or None}


def _pairs(connection: Connection, *chosen: ColumnElement[bool]) -> Select[Any]:
    term, newest = run_terms.c.term, run_terms.c.run_id
    if connection.dialect.name == "postgresql":
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
