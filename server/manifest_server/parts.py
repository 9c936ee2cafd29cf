"""Parts of a filter: what holds of the runs that one means, for whoever looks for them."""

from __future__ import annotations

import operator as operators
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Final, NamedTuple, Self

from sqlalchemy import ColumnElement, Connection, Select, bindparam
from sqlalchemy.sql.elements import False_

from manifest.canonical import Json
from manifest.filtering import Comparison, Field, Scalar
from manifest_server.holders import holders
from manifest_server.tables import runs
from manifest_server.terms import double, searched_values, values_of

OPERATORS: Final = {
    "=": operators.eq,
    "<": operators.lt,
    "<=": operators.le,
    ">": operators.gt,
    ">=": operators.ge,
}
LOWEST: Final = "lowest"


class Numbers(NamedTuple):
    """Numbers of a range, of which some run has one under a key of its own."""

    field: Field
    bounds: Sequence[tuple[Callable[[float, float], bool], float]]
    """How they compare, and with what."""

    @classmethod
    def between(cls, field: Field, bounds: Sequence[Comparison]) -> Self:
        """Those within bounds that are numbers."""
        found = (
            (OPERATORS[each.operator], double(each.value))
            for each in bounds
            if isinstance(each.value, (int, float))
        )
        return cls(field, tuple(found))

    def are_in(self, values: Mapping[str, Json]) -> bool:
        """Whether one of them is in the section, with all that the run has there."""
        section, key = self.field.section, self.field.key
        # Most have none, and that is seen sooner than what there are terms of.
        return any(map(self._is_within, values_of(values, key))) and any(
            map(self._is_within, searched_values(section, values, key))
        )

    def _is_within(self, value: Scalar) -> bool:
        if isinstance(value, (bool, str)):
            return False
        number = double(value)
        return all(compare(number, bound) for compare, bound in self.bounds)


class Part(ABC):
    """What holds of the runs that a filter means: true or false, never unknown."""

    is_by_few: bool = False
    """Whether they are enumerated by few keys, so that counting some of them is quick."""
    terms: Sequence[int] | None = None
    """Of which these runs have one, where that is what holds of them."""
    numbers: Numbers | None = None
    """What these runs have, where too many terms would do."""

    @property
    @abstractmethod
    def sql(self) -> ColumnElement[bool]:
        """For a database that plans by itself."""

    @property
    @abstractmethod
    def walked(self) -> ColumnElement[bool]:
        """For runs looked at one after the other, none below the bound parameter `LOWEST`."""

    @property
    @abstractmethod
    def holders(self) -> Select[tuple[str]] | None:
        """The ids of these runs, where they can be enumerated."""

    @property
    def is_never(self) -> bool:
        """Whether no run is meant, as it is known already."""
        return False


class Condition(Part):
    """What is said in SQL from the start."""

    def __init__(
        self,
        sql: ColumnElement[bool],
        walked: ColumnElement[bool] | None = None,
        holders: Select[tuple[str]] | None = None,
        *,
        is_by_few: bool = False,
    ) -> None:
        self._sql = sql
        self._walked = sql if walked is None else walked
        self._holders = holders
        self.is_by_few = is_by_few

    @property
    def sql(self) -> ColumnElement[bool]:
        """For a database that plans by itself."""
        return self._sql

    @property
    def walked(self) -> ColumnElement[bool]:
        """For runs looked at one after the other, none below the bound parameter `LOWEST`."""
        return self._walked

    @property
    def holders(self) -> Select[tuple[str]] | None:
        """The ids of these runs, where they can be enumerated."""
        return self._holders

    @property
    def is_never(self) -> bool:
        """Whether no run is meant, as it is known already."""
        return isinstance(self._sql, False_)


class OfTerms(Part):
    """That a run has one of some terms of its own.

    Put into SQL only where that is asked for: it takes longer than most searches, and those that
    begin at the terms do without.
    """

    def __init__(
        self,
        connection: Connection,
        found: list[int] | Select[int],
        numbers: Numbers | None = None,
    ) -> None:
        self._connection = connection
        self._found = found
        self.terms = found if isinstance(found, list) else None
        self.numbers = numbers

    @cached_property
    def sql(self) -> ColumnElement[bool]:
        """For a database that plans by itself."""
        return runs.c.id.in_(self.holders)

    @cached_property
    def walked(self) -> ColumnElement[bool]:
        """For runs looked at one after the other, none below the bound parameter `LOWEST`."""
        lowest = bindparam(LOWEST, type_=runs.c.id.type)
        return runs.c.id.in_(holders(self._connection, self._found, lowest=lowest))

    @cached_property
    def holders(self) -> Select[tuple[str]]:
        """The ids of these runs."""
        return holders(self._connection, self._found)
