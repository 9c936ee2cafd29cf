"""The newest runs that a filter means, found from the end where there are fewest.

What many runs have is soon found among the newest; what few have is found by its index. A database
takes one way for all, and is slow where it should have taken the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, count
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    literal,
    select,
    type_coerce,
)
from sqlalchemy.types import NullType

from manifest.filtering import Filter
from manifest_server.holders import having, lowest_row, newest_holders
from manifest_server.packing import unpack_sections
from manifest_server.parts import LOWEST, Numbers, Part
from manifest_server.rows import is_one_of
from manifest_server.searching import conditions, only_project
from manifest_server.tables import RunKey, runs

_FEW: Final = 1000
"""How many runs that can be enumerated are soon looked at, all of them."""
_MANY: Final = 20_000
"""And how many are looked at rather than all runs."""
_WALKS: Final = (500, 4000, 20_000)
"""How many of the newest runs are looked at, where no terms say which."""
_LOOKS: Final = (60, 200, 400)
"""In how many more documents is looked for numbers of a range, before its terms are looked up."""
_AT_ONCE: Final = 50
"""How many of these are fetched together."""
_SOME: Final = 500
"""How many terms of a range are looked up before that."""
_MOST: Final = 1000
"""How many of these are looked up, rather than being too many."""
_MOST_ALONE: Final = 4000
"""The same where nothing else is asked for."""
_ROWS: Final = 16
"""How many rows of terms are looked at first."""
_FASTER: Final = 8
"""How many times as many then, and how many times more frequent a term is put off."""
_PORTIONS: Final = 4
"""How often runs that have terms are looked at, before others may be fewer."""
_GROWTH: Final = 4
_ID: Final = RunKey()
_AS_THEY_ARE: Final[list[ColumnElement[Any]]] = [
    type_coerce(each, NullType) for each in (runs.c.id, runs.c.document)
]
BELOW_ALL: Final = "0" * 32
"""An id that every run is beyond."""


class _Looked(NamedTuple):
    """What came of reading documents of runs, the newest first."""

    ids: list[str]
    """Of the runs that fit."""
    last: str | None
    """The last that was read of as many as were to be; None where there were fewer."""


class _Asked(NamedTuple):
    """What is asked for: the newest runs of a statement, of which all parts of a filter hold."""

    connection: Connection
    statement: Select[Any]
    parts: Sequence[Part]
    limit: int | None
    before: str | None

    def among(self, ids: Iterable[str]) -> Sequence[Row[Any]]:
        """Those of some runs."""
        left = sorted(set(ids), reverse=True)
        for each in self.parts:
            if each.terms is not None:
                found = having(self.connection, each.terms, left)
                left = [run_id for run_id in left if run_id in found]
        asked = self._replace(parts=[each for each in self.parts if each.terms is None])
        if left and asked.numbers:
            left = asked.look(is_one(self.connection, left), lowest=left[-1]).ids
            asked = asked._replace(parts=())
        return asked.walk(is_one(self.connection, left), lowest=left[-1]) if left else []

    @property
    def is_never(self) -> bool:
        """Whether no run is meant, as it is known already."""
        return any(each.is_never for each in self.parts)

    @property
    def numbers(self) -> list[Numbers]:
        """What documents say, of parts of which there are too many terms."""
        return [each.numbers for each in self.parts if each.numbers is not None]

    def look(
        self,
        *chosen: ColumnElement[bool],
        lowest: str = BELOW_ALL,
        most: int | None = None,
        limit: int | None = None,
    ) -> _Looked:
        """Those of which this holds, as their documents say of numbers.

        Args:
            chosen: What they are chosen by.
            lowest: None is below it.
            most: How many documents are read.
            limit: How many runs are looked for.
        """
        others = [each.walked for each in self.parts if each.numbers is None]
        # What has not ended has no terms yet. As the driver gives them, as most are dropped.
        columns: Select[Any] = self.statement.with_only_columns(*_AS_THEY_ARE).limit(most)
        rows = columns.where(*chosen, *others, runs.c.digest.is_not(None))
        found = self.connection.execute(rows, {LOWEST: lowest})
        keys, looked, key = [], 0, None
        for key, document in chain.from_iterable(found.partitions(_AT_ONCE)):
            looked += 1
            if has_numbers(document, self.numbers):
                keys.append(key)
                if len(keys) == limit:
                    break
        found.close()
        last = self._id(key) if looked == most else None
        return _Looked([self._id(each) for each in keys], last)

    def _id(self, key: object) -> str:
        return str(_ID.process_result_value(key, self.connection.dialect))

    def walk(self, *chosen: ColumnElement[bool], lowest: str = BELOW_ALL) -> Sequence[Row[Any]]:
        """Those of which this holds, looked at one after the other; none is below the lowest."""
        walked = self.statement.where(*chosen, *(each.walked for each in self.parts))
        return self.connection.execute(walked, {LOWEST: lowest}).all()


def has_numbers(document: bytes, numbers: Sequence[Numbers]) -> bool:
    """Whether a run has one of each of these, as its document says."""
    sections = unpack_sections(document, ())
    return all(each.are_in(sections.get(each.field.section, {})) for each in numbers)


def newest_runs(
    connection: Connection,
    columns: Sequence[ColumnElement[Any]],
    chosen: Sequence[ColumnElement[bool]],
    *,
    limit: int | None,
    before: str | None = None,
    wanted: Filter | None = None,
    project: str | None = None,
) -> Sequence[Row[Any]]:
    """Columns of the newest runs, newest first.

    Args:
        connection: In a transaction.
        columns: What is asked of each.
        chosen: What holds of them, and has an index that ends in the id.
        limit: How many.
        before: All are older.
        wanted: What else holds of them.
        project: The only one that they are of, as `chosen` says; it can be walked to its end.
    """
    if wanted is not None and project is None and (project := only_project(wanted)) is not None:
        chosen = [*chosen, runs.c.project == project]
    if before is not None:
        chosen = [*chosen, runs.c.id < before]
    statement = select(*columns).order_by(runs.c.id.desc()).limit(limit).where(*chosen)
    if wanted is None:
        return connection.execute(statement).all()
    parts = conditions(wanted, connection, project, most=_SOME)
    asked = _Asked(connection, statement, parts, limit, before)
    if asked.numbers and not asked.is_never:
        if limit is not None and (found := _by_looking(asked, chosen, limit)) is not None:
            return found
        most = _MOST_ALONE if len(parts) == 1 else _MOST
        asked = asked._replace(parts=conditions(wanted, connection, project, most=most))
    return [] if asked.is_never else _by_index(asked, chosen, project)


def _by_looking(
    asked: _Asked, chosen: Sequence[ColumnElement[bool]], limit: int
) -> Sequence[Row[Any]] | None:
    """Those among the newest runs by what their documents say, unless there seem to be too few."""
    ids: list[str] = []
    looked, left = 0, list(chosen)
    for most in _LOOKS:
        lacking = limit - len(ids)
        if len(asked.numbers) == len(asked.parts):
            found = asked.look(*left, most=most, limit=lacking)
        else:
            last = lowest_of(asked.connection, left, most)
            lowest = last or BELOW_ALL
            found = asked.look(*left, runs.c.id >= lowest, lowest=lowest, limit=lacking)
            found = found._replace(last=last)
        ids += found.ids
        looked += most
        if found.last is None or len(ids) == limit:
            return asked._replace(parts=()).among(ids)
        if len(ids) * sum(_LOOKS) < limit * looked:
            return None
        left = [*chosen, runs.c.id < found.last]
    return None


def _by_index(
    asked: _Asked, chosen: Sequence[ColumnElement[bool]], project: str | None
) -> Sequence[Row[Any]]:
    """Those that an index leads to, from the end where there are fewest."""
    by_few = [each for each in asked.parts if each.is_by_few]
    if (few := _enumerated(asked, _FEW, by_few)) is not None:
        return _by_holders(asked, few)
    if asked.limit is not None and any(each.terms is not None for each in asked.parts):
        return _by_terms(asked, asked.limit)
    return _by_walking(asked, chosen, project)


def _by_terms(asked: _Asked, limit: int) -> Sequence[Row[Any]]:
    """Those that have the terms, the newest of them first."""
    rows = max(2, _ROWS // min(len(each.terms) for each in asked.parts if each.terms is not None))
    found: list[Row[Any]] = []
    before = asked.before
    reach = _reach_of(asked, rows, before)
    for turn in count():
        if turn == _PORTIONS:
            others = [each for each in asked.parts if each.terms is None]
            if (many := _enumerated(asked, _MANY, others)) is not None:
                return [*found, *_by_holders(asked._replace(before=before), many)][:limit]
        most = min(limit * _GROWTH**turn, max(limit, _MANY))
        ids = newest_holders(
            asked.connection, reach.held, limit=most, lowest=reach.lowest, before=before
        )
        found += reach.rest.among(ids)
        if len(found) >= limit or (reach.lowest is None and len(ids) < most):
            break
        if len(ids) == most:
            before = ids[-1]
        else:
            before, rows = reach.lowest, rows * _FASTER
            reach = _reach_of(asked, rows, before)
    return found[:limit]


class _Reach(NamedTuple):
    """How far back some rows of each term go, and what is looked for in them."""

    lowest: str | None
    held: Sequence[Sequence[int]]
    """Terms that are looked for together."""
    rest: _Asked
    """What is then asked of the runs that have them."""


def _reach_of(asked: _Asked, rows: int, before: str | None) -> _Reach:
    """As far as the rarest term goes; with those that have not many times its rows up to there."""
    connection = asked.connection
    held = {place: each.terms for place, each in enumerate(asked.parts) if each.terms is not None}
    lowest = {
        place: lowest_row(connection, terms, rows, before=before) for place, terms in held.items()
    }
    rarest = min(held, key=lambda place: lowest[place] or "")
    met = [rarest]
    for place in held.keys() - met:
        beyond = lowest_row(connection, held[place], rows * _FASTER, before=before)
        if beyond is None or beyond <= (lowest[rarest] or ""):
            met.append(place)
    others = [each for place, each in enumerate(asked.parts) if place not in met]
    return _Reach(lowest[rarest], [held[place] for place in met], asked._replace(parts=others))


def _by_walking(
    asked: _Asked, chosen: Sequence[ColumnElement[bool]], project: str | None
) -> Sequence[Row[Any]]:
    """Those that turn up where each run is looked at, if they are not few."""
    for most in _WALKS:
        lowest = lowest_of(asked.connection, chosen, most)
        if lowest is None:
            return asked.walk()
        found = asked.walk(runs.c.id >= lowest, lowest=lowest)
        if len(found) == asked.limit:
            return found
        if most == _WALKS[0] and (few := _enumerated(asked, _FEW, asked.parts)) is not None:
            return _by_holders(asked, few)
    if (many := _enumerated(asked, _MANY, asked.parts)) is not None:
        return _by_holders(asked, many)
    if project is not None:
        return asked.walk()
    searched = asked.statement.where(*(each.sql for each in asked.parts))
    return asked.connection.execute(searched).all()


def _by_holders(asked: _Asked, holders: Select[tuple[str]]) -> Sequence[Row[Any]]:
    """Those among runs that can be enumerated, the newest of them first."""
    found: list[Row[Any]] = []
    run_id = holders.subquery().c[0]
    newest = select(run_id).order_by(run_id.desc())
    before, most = asked.before, _MANY if asked.limit is None else asked.limit
    while True:
        left = newest if before is None else newest.where(run_id < before)
        ids = asked.connection.scalars(left.limit(most)).all()
        found += asked.among(ids)
        if len(ids) < most or (asked.limit is not None and len(found) >= asked.limit):
            return found[: asked.limit]
        before, most = ids[-1], most * _GROWTH


def _enumerated(asked: _Asked, most: int, parts: Sequence[Part]) -> Select[tuple[str]] | None:
    """The runs that one of these parts leaves, if there is one that leaves so few."""
    for each in parts:
        if each.holders is None:
            continue
        # Asked for what is beyond them: most are many, and take time to fetch. And not for ids,
        # which an index need not have.
        beyond = select(literal(1)).select_from(each.holders.subquery())
        if asked.connection.scalar(beyond.offset(most).limit(1)) is None:
            return each.holders
    return None


def is_one(connection: Connection, ids: Sequence[str]) -> ColumnElement[bool]:
    """Whether a run is one of these."""
    return is_one_of(connection.dialect.name, runs.c.id, ids)


def lowest_of(
    connection: Connection, chosen: Sequence[ColumnElement[bool]], count: int
) -> str | None:
    """The last of so many runs, the newest first; None where there are fewer."""
    statement = select(runs.c.id).where(*chosen).order_by(runs.c.id.desc())
    return connection.scalar(statement.offset(count - 1).limit(1))
