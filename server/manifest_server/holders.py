"""Which runs have a term: among the rows that were put together, and in those of the last runs."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from functools import cache, partial
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Connection,
    FromClause,
    Integer,
    LargeBinary,
    Select,
    Subquery,
    any_,
    bindparam,
    case,
    column,
    desc,
    exists,
    func,
    intersect,
    literal,
    null,
    or_,
    select,
    true,
    type_coerce,
    union_all,
)

from manifest_server.rows import as_given, given_numbers, is_one_of
from manifest_server.tables import RunKey, fresh_terms, run_terms, terms

MOST_TOGETHER: Final = 61
"""Runs of a row: what SQLite keeps on one page, four rows to each."""

_KEY_BYTES: Final = 16
_PLACES: Final = str(list(range(MOST_TOGETHER)))
_LOWEST: Final = "0" * 32
_HIGHEST: Final = "f" * 32
_older = run_terms.c.older

Wanted: TypeAlias = Sequence[int] | Select[Any]
"""The numbers of some terms, or a statement that finds them."""


def pairs(connection: Connection, wanted: Wanted | None = None) -> Select[tuple[int, str]]:
    """Terms and the runs that have them; of those that are wanted, or of all."""
    found = _held(connection.dialect.name, wanted)
    return select(found.c.term, found.c.run_id)


def holders(
    connection: Connection, wanted: Wanted, *, lowest: ColumnElement[str] | None = None
) -> Select[tuple[str]]:
    """The ids of the runs alone; where a lowest is given, some that are below may be left out."""
    return select(_held(connection.dialect.name, wanted, lowest=lowest).c.run_id)


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


def counted(connection: Connection, each: FromClause) -> CompoundSelect[Any]:
    """How many runs have each term of a table, in several rows, beside all its columns.

    NULL in one of them where none has it.
    """
    dialect = connection.dialect.name
    value = _values(dialect)
    fresh = select(*each.c, literal(1)).join_from(fresh_terms, value, true())
    return union_all(
        _counted_together(each, func.sum(count_of(_older, dialect)), dialect),
        fresh.join(each, each.c.id == value.c.value),
    )


def _counted_together(each: FromClause, count: ColumnElement[int], dialect: str) -> Select[Any]:
    if dialect != "postgresql":
        of_term = select(count).where(run_terms.c.term == each.c.id)
        return select(*each.c, of_term.scalar_subquery().label("runs"))
    # Joined to many terms as they are it would rather read all of `run_terms`; and a look for each
    # takes it twice as long as one at all of them, in their order.
    wanted = func.array(select(each.c.id).scalar_subquery())
    of_terms = (
        select(run_terms.c.term, count.label("runs"))
        .where(run_terms.c.term == any_(wanted))
        .group_by(run_terms.c.term)
        .subquery()
    )
    return select(*each.c, of_terms.c.runs).join(of_terms, of_terms.c.term == each.c.id)


def is_held(connection: Connection, term: ColumnElement[int]) -> ColumnElement[bool]:
    """Whether a run has a term."""
    value = _values(connection.dialect.name)
    fresh = select(value.c.value).select_from(fresh_terms).join(value, true())
    return or_(exists().where(run_terms.c.term == term), term.in_(fresh))


def count_of(older: ColumnElement[Any], dialect: str) -> ColumnElement[int]:
    """Of how many runs a row is."""
    if dialect == "postgresql":
        return 1 + func.coalesce(func.cardinality(older), 0)
    return 1 + func.coalesce(func.length(older, type_=Integer), 0) // _KEY_BYTES


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
        wanted = select(given_numbers(dialect, f"numbers_{place}").c.value)
        found = _held(dialect, wanted, _oldest(dialect) < before, lowest=lowest)
        between = found.c.run_id >= lowest, found.c.run_id < before
        each.append(select(found.c.run_id).where(*between))
    found_in_all = (each[0] if count == 1 else intersect(*each)).subquery()
    newest_first = select(found_in_all.c.run_id).order_by(found_in_all.c.run_id.desc())
    return newest_first.limit(bindparam("limit"))


@cache
def _having() -> Select[tuple[str]]:
    """For PostgreSQL, where an array comes to Python as one object for each run."""
    newest = run_terms.c.run_id
    run_ids = bindparam("run_ids", type_=ARRAY(newest.type))
    oldest = _oldest("postgresql")
    count_to = partial(func.width_bucket, type_=BigInteger)  # of the runs, which are in order
    may_have = or_(count_to(newest, run_ids) > count_to(oldest, run_ids), oldest == any_(run_ids))
    wanted, lowest = _given("postgresql")
    rows = _held("postgresql", wanted, may_have, lowest=lowest)
    return select(rows.c.run_id).where(rows.c.run_id == any_(run_ids))


@cache
def _bare_rows() -> CompoundSelect[Any]:
    """For SQLite, where a row comes to Python as the bytes that it is."""
    newest, older = (type_coerce(each, LargeBinary) for each in (run_terms.c.run_id, _older))
    wanted, lowest = _given("sqlite")
    is_wanted = _is_wanted("sqlite", run_terms.c.term, wanted)
    rows = select(newest, older).where(is_wanted, run_terms.c.run_id >= lowest)
    fresh = _fresh("sqlite", wanted, lowest=lowest).subquery()
    return union_all(rows, select(type_coerce(fresh.c.run_id, LargeBinary), null()))


def _given(dialect: str) -> tuple[Wanted, ColumnElement[str]]:
    lowest = bindparam("lowest", type_=run_terms.c.run_id.type)
    return select(given_numbers(dialect, "numbers_0").c.value), lowest


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


def _held(
    dialect: str,
    wanted: Wanted | None,
    *of_rows: ColumnElement[bool],
    lowest: ColumnElement[str] | None = None,
) -> Subquery:
    """Terms with the runs that have them, from all rows or from those of which something holds."""
    chosen = list(of_rows)
    if wanted is not None:
        chosen.append(_is_wanted(dialect, run_terms.c.term, wanted))
    if lowest is not None:
        chosen.append(run_terms.c.run_id >= lowest)
    term, run_id, _ = (rows := gathered(dialect, *chosen)).selected_columns
    together = rows.with_only_columns(term, run_id)
    return union_all(together, _fresh(dialect, wanted, lowest=lowest)).subquery()


def _fresh(
    dialect: str, wanted: Wanted | None, *, lowest: ColumnElement[str] | None = None
) -> Select[Any]:
    """The same of runs that came lately: few, so that all their terms are looked at."""
    term = (value := _values(dialect)).c.value
    run_id = fresh_terms.c.run_id
    found = select(term.label("term"), run_id).join_from(fresh_terms, value, true())
    if isinstance(wanted, Select) and terms in wanted.get_final_froms():
        found = found.where(exists(wanted.where(terms.c.id == term)))  # of which there are many
    elif wanted is not None:
        found = found.where(_is_wanted(dialect, term, wanted))
    return found if lowest is None else found.where(run_id >= lowest)


def _values(dialect: str) -> FromClause:
    """The terms of a row of `fresh_terms`, as a table."""
    value = column("value", BigInteger)
    if dialect == "postgresql":
        listed = func.unnest(fresh_terms.c.terms, type_=BigInteger)
        return listed.table_valued(value).render_derived().lateral()
    return func.json_each(fresh_terms.c.terms).table_valued(value)


def _is_wanted(dialect: str, term: ColumnElement[int], wanted: Wanted) -> ColumnElement[bool]:
    if isinstance(wanted, Select) or len(wanted) == 1:
        return term.in_(wanted)
    return is_one_of(dialect, term, wanted)


def gathered(dialect: str, *chosen: ColumnElement[bool]) -> Select[Any]:
    """Terms, runs and the rows of `run_terms` that say so, as far as something holds of the row.

    None of a row with an id below that of a run is the run's.
    """
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
