"""Filters as SQL: which runs are meant, by bound parameters alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias, TypeGuard

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Double,
    Select,
    and_,
    cast,
    collate,
    column,
    exists,
    false,
    func,
    inspect,
    literal,
    not_,
    or_,
    select,
    table,
)
from sqlalchemy.sql.elements import UnaryExpression
from sqlalchemy.sql.operators import custom_op
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
from manifest.summaries import LABEL_LENGTHS, label
from manifest_server.parts import OPERATORS, Condition, Numbers, OfTerms, Part
from manifest_server.rows import found_numbers, is_one_of
from manifest_server.tables import (
    NAME_TRIGRAMS,
    SHARED,
    names,
    projects,
    runs,
    section_terms,
    setups,
    terms,
)
from manifest_server.terms import (
    NO_SECTION,
    OWN,
    double,
    own_id,
    term_id,
)

_PROJECT: Final = Field("", "project")
_IDS: Final = frozenset({"id", "replay_of"})
_LARGEST_INTEGER: Final = 2**63 - 1
_MOST: Final = 1000
"""How many terms, or names, are looked up rather than searched for with the runs."""


def condition(wanted: Filter, connection: Connection, project: str | None = None) -> Part:
    """What holds of the runs that a filter means, where all of them may be of one project.

    Terms and setups are looked up at once: what nobody has needs no search, and a database plans
    better where it sees the keys than where it must guess how many there will be.
    """
    if isinstance(wanted, Not):
        part = condition(wanted.part, connection, project)
        return Condition(not_(part.sql), not_(part.walked))
    if isinstance(wanted, All):
        parts = conditions(wanted, connection, project)
        return Condition(
            and_(*(part.sql for part in parts)), and_(*(part.walked for part in parts))
        )
    if isinstance(wanted, Either):
        parts = [condition(part, connection, project) for part in wanted.parts]
        return Condition(or_(*(part.sql for part in parts)), or_(*(part.walked for part in parts)))
    if wanted.field.section:
        return _of_fields([_held(wanted, connection, project)], connection, project)[0]
    sql = _of_column(wanted, connection.dialect.name)
    if wanted.field.key == "name" and isinstance(wanted, Comparison):
        return _of_name(wanted, sql, connection)
    if _is_status(wanted):
        of_project = [] if project is None else [runs.c.project == project]
        return Condition(sql, None, select(runs.c.id).where(sql, *of_project), is_by_few=True)
    return Condition(sql)


def conditions(
    wanted: Filter, connection: Connection, project: str | None = None, *, most: int = _MOST
) -> list[Part]:
    """What holds of the runs that a filter means, in parts that must hold together.

    Args:
        wanted: The filter.
        connection: In a transaction.
        project: The one that all runs may be of.
        most: How many terms of a range of numbers are looked up, rather than being too many; of
            none it is said that there are too many.
    """
    project = project or only_project(wanted)
    if not isinstance(wanted, All):
        if not _is_bound(wanted):
            return [condition(wanted, connection, project)]
        return _of_fields([_held(wanted, connection, project, most)], connection, project)
    bounds: dict[Field, list[Comparison]] = {}
    parts = _together(wanted)
    for part in parts:
        if _is_bound(part):
            bounds.setdefault(part.field, []).append(part)
    ranges = {
        field: found
        for field, found in bounds.items()
        if len(found) > 1 and not _has_several_values(field, connection)
    }
    left = [part for part in parts if not (_is_bound(part) and part.field in ranges)]
    held = [
        _Held(
            field,
            _known_if_few(_between(field, found, connection, project), connection, most),
            found,
        )
        for field, found in ranges.items()
    ]
    others: list[Filter] = []
    for part in left:
        if isinstance(part, (Comparison, Among, Present)) and part.field.section:
            held.append(_held(part, connection, project, most))
        else:
            others.append(part)
    return [
        *(condition(part, connection, project) for part in others),
        *_of_fields(held, connection, project),
    ]


def only_project(wanted: Filter) -> str | None:
    """The one project whose runs a filter means, if it says so."""
    for part in _together(wanted):
        if isinstance(part, Comparison) and (part.field, part.operator) == (_PROJECT, "="):
            return part.value if isinstance(part.value, str) else None
    return None


def _together(wanted: Filter) -> list[Filter]:
    """The parts of a filter that must hold together, also of those within."""
    if not isinstance(wanted, All):
        return [wanted]
    return [part for each in wanted.parts for part in _together(each)]


def _is_bound(part: Filter) -> TypeGuard[Comparison]:
    return (
        isinstance(part, Comparison)
        and bool(part.field.section)
        and part.operator in _BOUNDS
        and isinstance(part.value, (int, float))
        and not isinstance(part.value, bool)
    )


def _has_several_values(field: Field, connection: Connection) -> bool:
    # Of two values one may lie above the lower bound and the other below the upper.
    several = of_field(Field(NO_SECTION, f"{field.section}.{field.key}"))
    return connection.scalar(several.limit(1)) is not None


def _between(
    field: Field, bounds: list[Comparison], connection: Connection, project: str | None
) -> Select[int]:
    found = of_field(field, project)
    # Numbers of a key are in order project by project.
    if field.section in SHARED:
        found = found.where(terms.c.project == "")
    elif project is None:
        found = found.where(terms.c.project.in_(select(projects.c.name)))
    for bound in bounds:
        found = found.where(_of_term(bound.operator, bound.value, connection.dialect.name))
    return found


class _Held(NamedTuple):
    """What a run, or a section that it shares, is to have under a key."""

    field: Field
    terms: _Terms
    bounds: Sequence[Comparison] = ()
    """Between which the numbers of these terms are, if they are numbers."""


def _held(
    part: Comparison | Among | Present,
    connection: Connection,
    project: str | None,
    most: int = _MOST,
) -> _Held:
    if _is_bound(part):
        found = _between(part.field, [part], connection, project)
        return _Held(part.field, _known_if_few(found, connection, most), [part])
    return _Held(part.field, _terms(part, connection, project))


def _of_fields(held: Sequence[_Held], connection: Connection, project: str | None) -> list[Part]:
    shared = [(each.field.section, each.terms) for each in held if each.field.section in SHARED]
    own = [_of_own(each, connection) for each in held if each.field.section not in SHARED]
    return [*own, _of_shared(shared, connection, project)] if shared else own


def _of_shared(
    held: Sequence[tuple[str, _Terms]], connection: Connection, project: str | None
) -> Part:
    """What holds of runs whose setup has a term in each of these sections."""
    key = runs.c.setup_key
    has_terms = [
        setups.c[f"{section}_key"].in_(
            select(section_terms.c.key).where(section_terms.c.term.in_(found))
        )
        for section, found in held
    ]
    holding = select(setups.c.key).where(*has_terms)
    if project is not None:
        holding = holding.where(setups.c.project == project)
    most = _MOST_SETUPS[connection.dialect.name]
    keys = list(connection.scalars(holding.limit(most + 1)))
    if not keys:
        return Condition(false())
    if len(keys) > most:
        sql = and_(key.is_not(None), key.in_(holding))
        # Of so many setups most are of no run that is looked at.
        walked: ColumnElement[bool] = exists().where(setups.c.key == key, *has_terms)
        return Condition(sql, walked, select(runs.c.id).where(sql))
    sql = and_(key.is_not(None), is_one_of(connection.dialect.name, key, keys))
    if connection.dialect.name == "postgresql":
        is_by_few = len(keys) <= _FEW_SETUPS
        return Condition(sql, None, select(runs.c.id).where(sql), is_by_few=is_by_few)
    # A sign before it keeps SQLite from the index, which is not in the order of the walk.
    signed = UnaryExpression(key, operator=custom_op("+"), type_=key.type)
    walked = and_(key.is_not(None), signed.in_(keys))
    return Condition(sql, walked, select(runs.c.id).where(sql), is_by_few=True)


def _of_own(held: _Held, connection: Connection) -> Part:
    """What holds of runs that have one of these terms."""
    found, numbers = held.terms, None
    if found == []:
        return Condition(false())
    has_documents = held.field.section in OWN and len(held.field.key) < _LONGEST_KEY
    if held.bounds and has_documents and not isinstance(found, list):
        numbers = Numbers.between(held.field, held.bounds)
    return OfTerms(connection, found, numbers)


def _terms(
    wanted: Comparison | Among | Present, connection: Connection, project: str | None
) -> _Terms:
    """The numbers of the terms that are meant, unless they are very many."""
    if isinstance(wanted, Among):
        return _numbers(wanted.field, wanted.values, connection, project)
    if isinstance(wanted, Comparison) and wanted.operator == "=":
        return _numbers(wanted.field, (wanted.value,), connection, project)
    found = of_field(wanted.field, project)
    if isinstance(wanted, Comparison):
        found = found.where(_of_term(wanted.operator, wanted.value, connection.dialect.name))
    return _known_if_few(found, connection)


def _numbers(
    field: Field, values: Sequence[Scalar], connection: Connection, project: str | None
) -> _Terms:
    numbers = {term_id(field.section, field.key, value) for value in values}
    if field.section in SHARED:
        return sorted(numbers)
    if project is not None:
        return sorted(own_id(project, number) for number in numbers)
    names = connection.scalars(select(projects.c.name))
    own = sorted(own_id(name, number) for name in names for number in numbers)
    return list(connection.scalars(select(terms.c.id).where(terms.c.id.in_(own))))


def of_field(field: Field, project: str | None = None) -> Select[int]:
    """The numbers of all terms of a field; where it is of runs, of one project if it is given."""
    found = select(terms.c.id).where(terms.c.section == field.section, terms.c.key == field.key)
    if project is not None and field.section not in SHARED:
        found = found.where(terms.c.project == project)
    return found


def _known_if_few(found: Select[int], connection: Connection, most: int = _MOST) -> _Terms:
    some = found_numbers(connection, found.limit(most + 1)) if most else []
    return some if most and len(some) <= most else found


_BOUNDS: Final = frozenset({"<", "<=", ">", ">="})
_Terms: TypeAlias = list[int] | Select[int]
_LONGEST_KEY: Final = LABEL_LENGTHS["key"]
# PostgreSQL plans better where it sees the keys; SQLite searches sooner than it takes them in.
_MOST_SETUPS: Final = {"sqlite": 20, "postgresql": 300}
_FEW_SETUPS: Final = 20


def _of_term(operator: str, value: Scalar, dialect: str) -> ColumnElement[bool]:
    if isinstance(value, str):
        return and_(terms.c.kind == "s", _of_text(terms.c.value, operator, value, dialect))
    if isinstance(value, bool):
        stored = _ordered(terms.c.value, dialect)  # "false" comes before "true"
        return and_(terms.c.kind == "b", _compared(stored, operator, str(value).lower()))
    return _compared(terms.c.number, operator, double(value))  # which nothing else has


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


def _is_status(wanted: Comparison | Among | Present) -> bool:
    """Whether an index knows the runs of it, newest first."""
    is_equal = isinstance(wanted, Comparison) and wanted.operator == "="
    return wanted.field.key == "status" and is_equal


def _of_name(wanted: Comparison, sql: ColumnElement[bool], connection: Connection) -> Part:
    """What holds of runs of a name: where names are few, the runs are found by them."""
    dialect = connection.dialect.name
    if not isinstance(wanted.value, str):
        return Condition(false())
    found = select(names.c.name).where(
        _of_text(names.c.name, wanted.operator, wanted.value, dialect)
    )
    if wanted.operator == "~" and len(wanted.value) >= _TRIGRAM and _has_trigrams(connection):
        quoted = '"' + wanted.value.replace('"', '""') + '"'
        has_all = _trigrams.c.name.op("MATCH")(label(quoted, len(quoted)))
        found = found.where(names.c.number.in_(select(_trigrams.c.rowid).where(has_all)))
    known = connection.scalars(found.limit(_MOST + 1)).all()
    if not known:
        return Condition(false())
    if len(known) > _MOST:
        return Condition(sql)
    return Condition(sql, None, select(runs.c.id).where(runs.c.name.in_(known)), is_by_few=True)


def _has_trigrams(connection: Connection) -> bool:
    if connection.dialect.name != "sqlite":
        return False  # PostgreSQL uses its index by itself
    known = connection.info  # for as long as the file stays open
    if NAME_TRIGRAMS not in known:
        known[NAME_TRIGRAMS] = inspect(connection).has_table(NAME_TRIGRAMS)
    return bool(known[NAME_TRIGRAMS])


_TRIGRAM: Final = 3
_trigrams = table(NAME_TRIGRAMS, column("rowid", BigInteger), column("name", Text))


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
    compared: ColumnElement[bool] = OPERATORS[operator](column, value)
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
