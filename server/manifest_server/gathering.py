"""How runs are put to their terms: as they come, and later together with others.

A run that comes adds a single row with all of its terms that others have. When there are some
thousands of terms in such rows, a writer puts them to the runs that had them before, a row for some
sixty runs of a term. A row for each term and run would be most of a database, and to write it at
once would be most of the work: each lies in another place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Select,
    bindparam,
    delete,
    func,
    insert,
    literal,
    not_,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningDelete

from manifest_server.holders import MOST_TOGETHER, count_of, gathered
from manifest_server.rows import insert_missing, is_given, portions
from manifest_server.tables import fresh_terms, run_terms, terms
from manifest_server.terms import Term

_FRESH: Final = 16_384
"""How many terms of runs there are in rows of their own, more or less, until they are put away."""
_TURN: Final = 64
_LOOKED_AT: Final = 2 * MOST_TOGETHER
_WORTH_IT: Final = 8
_AT_ONCE: Final = 20
_older = run_terms.c.older


def put_run_terms(
    connection: Connection, held: Mapping[str, Sequence[Term]], new: AbstractSet[int]
) -> None:
    """Say which terms runs have that they had not before.

    Args:
        connection: In a transaction that writes.
        held: The terms, by run.
        new: The numbers of those that no run had. Most of them no other run will have either, so
            that nothing is won by waiting for more.
    """
    numbers = {run_id: {term.id for term in some} for run_id, some in held.items()}
    _put(connection, ((run_id, some & new) for run_id, some in numbers.items()))
    left = {run_id: [*known] for run_id, some in numbers.items() if (known := some - new)}
    rows = [{"run_id": run_id, "terms": some} for run_id, some in left.items()]
    insert_missing(connection, fresh_terms, rows)
    if any(_is_time(run_id, len(some)) for run_id, some in left.items()):
        put_away(connection)


def put_away(connection: Connection) -> None:
    """Put the terms of runs that came lately to those of all others."""
    rows = _put(
        connection, ((row.run_id, row.terms) for row in connection.execute(_taking_fresh()))
    )
    gather(connection, {row["term"] for row in rows if _is_turn(row["term"], row["run_id"])})


def _put(
    connection: Connection, held: Iterable[tuple[str, Iterable[int]]]
) -> Sequence[dict[str, Any]]:
    """Put runs to their terms; gives the rows."""
    run_ids: dict[int, list[str]] = {}
    for run_id, numbers in held:
        for number in numbers:
            run_ids.setdefault(number, []).append(run_id)
    rows = [row for number in sorted(run_ids) for row in _rows(number, run_ids[number])]
    insert_missing(connection, run_terms, rows)
    return rows


def drop_run_terms(connection: Connection, pairs: Iterable[tuple[str, int]]) -> None:
    """Say that runs have terms no more, by their numbers."""
    gone: dict[str, set[int]] = {}
    for run_id, number in pairs:
        gone.setdefault(run_id, set()).add(number)
    for portion in portions(sorted(gone)):
        _drop_fresh(connection, portion, gone)
    for number, run_id in sorted((number, each) for each, some in gone.items() for number in some):
        # Nobody else puts rows of this term together until the transaction ends.
        connection.execute(select(terms.c.id).where(terms.c.id == number).with_for_update())
        _drop_gathered(connection, run_id, number)


def _drop_fresh(
    connection: Connection, run_ids: Sequence[str], gone: Mapping[str, set[int]]
) -> None:
    """Take terms from the rows of runs that came lately, and from what is still to be dropped."""
    # Whoever is putting these away is waited for.
    given = {"run_ids": run_ids}
    for row in connection.execute(_locking_fresh(connection.dialect.name), given).all():
        left = [number for number in row.terms if number not in gone[row.run_id]]
        gone[row.run_id].difference_update(row.terms)
        if len(left) == len(row.terms):
            continue
        is_row = fresh_terms.c.number == row.number
        change = update(fresh_terms).values(terms=left) if left else delete(fresh_terms)
        connection.execute(change.where(is_row))


def _drop_gathered(connection: Connection, run_id: str, number: int) -> None:
    is_of_term = run_terms.c.term == number
    may_be_in = is_of_term, run_terms.c.run_id >= run_id
    found = gathered(connection.dialect.name, *may_be_in).subquery()
    statement = select(found.c.row).where(found.c.run_id == run_id).order_by(found.c.row)
    key = connection.scalar(statement.limit(1))
    if key is None:
        return
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


def _is_time(run_id: str, count: int) -> bool:
    """Whether a run of so many terms is the one in so many after which terms are put away."""
    return int(run_id[-4:], 16) % max(1, _FRESH // count) == 0


def _is_turn(number: int, run_id: str) -> bool:
    """Whether a row is the one in so many at which those of its term are gathered."""
    return (number ^ int(run_id[-4:], 16)) % _TURN == 0


@cache
def _locking_fresh(dialect: str) -> Select[Any]:
    of_runs = select(fresh_terms).where(is_given(dialect, fresh_terms.c.run_id, "run_ids"))
    return of_runs.order_by(fresh_terms.c.number).with_for_update()


@cache
def _taking_fresh() -> ReturningDelete[str, list[int]]:
    # What another writer puts away is passed over: nobody waits.
    some = select(fresh_terms.c.number).with_for_update(skip_locked=True)
    taken = delete(fresh_terms).where(fresh_terms.c.number.in_(some))
    return taken.returning(fresh_terms.c.run_id, fresh_terms.c.terms)


@cache
def _locking(dialect: str) -> Select[int]:
    row = select(literal(1)).where(run_terms.c.term == terms.c.id)
    has_some = row.offset(_WORTH_IT - 1).limit(1).scalar_subquery().is_not(None)
    wanted = select(terms.c.id).where(is_given(dialect, terms.c.id, "numbers"), has_some)
    # A term that somebody else gathers, or drops runs of, has its turn another time.
    return wanted.order_by(terms.c.id).with_for_update(skip_locked=True)


@cache
def _taking(dialect: str) -> ReturningDelete[str, list[str] | None]:
    """Delete what is not full of the newest rows of a term, where that is worth it."""
    is_of_term = run_terms.c.term == bindparam("term")
    rows = select(run_terms.c.run_id, _older).where(is_of_term).order_by(run_terms.c.run_id.desc())
    newest = rows.limit(bindparam("most_rows")).subquery()
    is_full = count_of(newest.c.older, dialect) >= MOST_TOGETHER
    found = select(newest.c.run_id).where(not_(is_full)).cte()
    is_worth_it = select(func.count()).select_from(found).scalar_subquery() >= _WORTH_IT
    taken = delete(run_terms).where(
        is_of_term, is_worth_it, run_terms.c.run_id.in_(select(found.c.run_id))
    )
    return taken.returning(run_terms.c.run_id, _older)


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
