"""Filters as SQL: which runs are meant, by bound parameters alone."""

from __future__ import annotations

import operator as operators
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Double,
    Select,
    and_,
    cast,
    collate,
    false,
    func,
    literal,
    not_,
    or_,
    select,
)
from sqlalchemy.types import Text

from manifest.filtering import (
    MOMENTS,
    All,
    Among,
    Comparison,
    Either,
    Field,
    Filter,
    Not,
    Present,
    Scalar,
)
from manifest.summaries import label
from manifest_server.tables import SHARED, run_terms, runs, section_terms, terms
from manifest_server.terms import double, term_id

_IDS: Final = frozenset({"id", "replay_of"})
_LARGEST_INTEGER: Final = 2**63 - 1
_OPERATORS: Final = {
    "=": operators.eq,
    "<": operators.lt,
    "<=": operators.le,
    ">": operators.gt,
    ">=": operators.ge,
}


def condition(wanted: Filter, dialect: str) -> ColumnElement[bool]:
    """What holds of the runs that a filter means.

    Every part is true or false, never unknown, so that `not` may stand before any.

    Args:
        wanted: The filter.
        dialect: The name of the database: ``sqlite`` or ``postgresql``.
    """
    if isinstance(wanted, Not):
        return not_(condition(wanted.part, dialect))
    if isinstance(wanted, All):
        return and_(*(condition(part, dialect) for part in wanted.parts))
    if isinstance(wanted, Either):
        return or_(*(condition(part, dialect) for part in wanted.parts))
    if wanted.field.section:
        return _of_terms(wanted, dialect)
    return _of_column(wanted, dialect)


def _of_terms(wanted: Comparison | Among | Present, dialect: str) -> ColumnElement[bool]:
    section = wanted.field.section
    found = _terms(wanted, dialect)
    if section not in SHARED:
        return runs.c.id.in_(select(run_terms.c.run_id).where(run_terms.c.term.in_(found)))
    key = runs.c[f"{section}_key"]
    sections = select(section_terms.c.key).where(section_terms.c.term.in_(found))
    return and_(key.is_not(None), key.in_(sections))


def _terms(wanted: Comparison | Among | Present, dialect: str) -> list[int] | Select[tuple[int]]:
    """The numbers of the terms that are meant: known at once for what is equal."""
    section, key = wanted.field.section, wanted.field.key
    if isinstance(wanted, Among):
        return sorted({term_id(section, key, value) for value in wanted.values})
    if isinstance(wanted, Comparison) and wanted.operator == "=":
        return [term_id(section, key, wanted.value)]
    found = select(terms.c.id).where(terms.c.section == section, terms.c.key == key)
    if isinstance(wanted, Present):
        return found
    return found.where(_of_term(wanted.operator, wanted.value, dialect))


def _of_term(operator: str, value: Scalar, dialect: str) -> ColumnElement[bool]:
    if isinstance(value, str):
        return and_(terms.c.kind == "s", _of_text(terms.c.value, operator, value, dialect))
    if isinstance(value, bool):
        stored = _ordered(terms.c.value, dialect)  # "false" comes before "true"
        return and_(terms.c.kind == "b", _compared(stored, operator, str(value).lower()))
    return and_(terms.c.kind == "n", _compared(terms.c.number, operator, double(value)))


def _of_column(wanted: Comparison | Among | Present, dialect: str) -> ColumnElement[bool]:
    column = runs.c[wanted.field.key]
    if isinstance(wanted, Present):
        return column.is_not(None)
    pairs = (
        [("=", value) for value in wanted.values]
        if isinstance(wanted, Among)
        else [(wanted.operator, wanted.value)]
    )
    conditions = [_of_value(wanted.field, operator, value, dialect) for operator, value in pairs]
    return and_(column.is_not(None), or_(*conditions))


def _of_value(field: Field, operator: str, value: Scalar, dialect: str) -> ColumnElement[bool]:
    column = runs.c[field.key]
    if field.key == "steps":
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return false()
        return _compared(column, operator, _number(value))
    if not isinstance(value, str):
        return false()
    if field.key in MOMENTS:
        return _compared(column, operator, value)
    if field.key in _IDS:
        return _of_text(_shown_id(column, dialect), operator, value, dialect)
    return _of_text(column, operator, value, dialect)


def _of_text(
    column: ColumnElement[Any], operator: str, value: str, dialect: str
) -> ColumnElement[bool]:
    value = label(value, len(value) + 1) or ""
    if operator == "=":
        return _compared(column, operator, value)
    if operator == "~":
        return _like(column, f"%{_escaped(value)}%", dialect)
    if operator == "like":
        return _like(column, _escaped(value, wildcards=""), dialect)
    return _compared(_ordered(column, dialect), operator, value)


def _like(column: ColumnElement[Any], pattern: str, dialect: str) -> ColumnElement[bool]:
    fit = literal(label(pattern, len(pattern) + 1), Text)
    # SQLite takes A to Z as equal in either case by itself.
    if dialect == "postgresql":
        return column.ilike(fit, escape="\\")
    return column.like(fit, escape="\\")


def _escaped(value: str, *, wildcards: str = "%_") -> str:
    return "".join(f"\\{char}" if char in f"\\{wildcards}" else char for char in value)


def _compared(column: ColumnElement[Any], operator: str, value: Any) -> ColumnElement[bool]:
    compared: ColumnElement[bool] = _OPERATORS[operator](column, value)
    return compared


def _ordered(column: ColumnElement[Any], dialect: str) -> ColumnElement[Any]:
    # By characters, as SQLite and Python compare, not as the language of the database sorts.
    return collate(column, "C") if dialect == "postgresql" else column


def _number(value: float) -> Any:
    if isinstance(value, int) and abs(value) <= _LARGEST_INTEGER:
        return value
    return literal(double(value), Double)


def _shown_id(column: ColumnElement[Any], dialect: str) -> ColumnElement[Any]:
    if dialect == "postgresql":
        return cast(column, Text)
    digits = func.lower(func.hex(column))
    parts = [func.substr(digits, start, size) for start, size in _ID_PARTS]
    shown: ColumnElement[Any] = parts[0]
    for part in parts[1:]:
        shown = shown.concat("-").concat(part)
    return shown


_ID_PARTS: Final = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
