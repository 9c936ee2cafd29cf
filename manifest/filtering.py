"""Filters: which runs are meant, in one line that people can type.

::

    status = "failed" and config.lr > 0.1
    settings.torch.version = "2.13.0" and not tags.team in ("nlp", "cv")
    env.OMP_NUM_THREADS = "1" and config."learning rate" is null
    (project ~ "digits" or name like "sweep-%") and seeds.hash_seed is not null

A field is an attribute of the run (`ATTRIBUTES`), or a section and a key in it, of which any part
may be quoted; ``env`` stands for the variables. A comparison is true where the run has such a
value: a run without the field answers no to ``!=`` as to ``>``, and ``not`` turns any answer round.
Numbers compare with numbers alone, texts with texts; ``like`` (with ``%`` and ``_``) and ``~``
(contains) take the letters A to Z as equal in either case, and look, as ``<`` and ``>`` do, at the
beginning of very long texts. Where a field holds a list, one element is enough.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from manifest.errors import FilterInvalid
from manifest.models import SECTIONS

if TYPE_CHECKING:
    from lark import Lark, Token, Tree

Scalar: TypeAlias = str | int | float | bool

ATTRIBUTES: Final = {
    "id": "the id of the run",
    "project": "what the run belongs to",
    "name": "its name for people",
    "status": "running, finished, failed or crashed",
    "started_at": "when it began, UTC, as in 2026-11-25T08:30",
    "ended_at": "when it ended",
    "command": "the command line",
    "steps": "how many steps were observed",
    "replay_of": "the run that this one replayed",
    "outcome": "what a replay showed",
}
"""Fields without a section, and what they are."""

MOMENTS: Final = frozenset({"started_at", "ended_at"})
"""Attributes that compare as moments; a day stands for its beginning, UTC where nothing is said."""

TAGS: Final = "tags"
"""The section of what people put to a run afterwards."""

_UNSEARCHED: Final = {
    "command": 'the attribute command, as in: command ~ "--lr"',
    "generators": "seeds, or another section: states of generators are not searched",
    "outputs": "inputs, or another section: what a run wrote is not searched",
}

SEARCHED: Final = (*(name for name in SECTIONS if name not in _UNSEARCHED), TAGS)
"""The sections whose keys are fields."""

LONGEST: Final = 4000
"""How many characters a filter may have."""

_VARIABLES: Final = "env"  # stands for the section `environment` and its keys that begin so
_MOST_VALUES = 200
_DEEPEST = 50


@dataclass(frozen=True, slots=True)
class Field:
    """What of a run is looked at: an attribute, if `section` is empty, or a key of a section."""

    section: str
    key: str

    def __str__(self) -> str:
        return f"{self.section}.{self.key}" if self.section else self.key


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field against one value; ``operator`` is one of ``= < <= > >= like ~``."""

    field: Field
    operator: str
    value: Scalar


@dataclass(frozen=True, slots=True)
class Among:
    """A field against several values, of which one must be equal."""

    field: Field
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Present:
    """Whether a run has a value there at all."""

    field: Field


@dataclass(frozen=True, slots=True)
class Not:
    """What does not hold."""

    part: Filter


@dataclass(frozen=True, slots=True)
class All:
    """What holds together."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """Of which one holds."""

    parts: tuple[Filter, ...]


Filter: TypeAlias = Comparison | Among | Present | Not | All | Either


def parse_filter(text: str) -> Filter:
    """Read a filter.

    Raises:
        FilterInvalid: It cannot be read; says at which character, and what was expected there.

    Example:
        >>> parse_filter("config.lr > 0.1")
        Comparison(field=Field(section='config', key='lr'), operator='>', value=0.1)
    """
    if len(text) > LONGEST:
        raise FilterInvalid(text, LONGEST, f"a filter of at most {LONGEST} characters")
    return _built(_parsed(text), text, _DEEPEST)


def written(wanted: Filter) -> str:
    """The text that reads as this filter.

    Example:
        >>> written(parse_filter("not config.lr > 0.1"))
        'not config.lr > 0.1'
    """
    if isinstance(wanted, Not):
        return f"not {_within(wanted.part)}"
    if isinstance(wanted, All):
        return " and ".join(map(_within, wanted.parts))
    if isinstance(wanted, Either):
        return " or ".join(map(_within, wanted.parts))
    name = _written_field(wanted.field)
    if isinstance(wanted, Present):
        return f"{name} is not null"
    if isinstance(wanted, Among):
        return f"{name} in ({', '.join(map(_written_value, wanted.values))})"
    return f"{name} {wanted.operator} {_written_value(wanted.value)}"


def parse_field(text: str) -> Field:
    """Read a field as filters name it.

    Raises:
        FilterInvalid: It is none.
    """
    wanted = parse_filter(f"{text} is null")
    if isinstance(wanted, Not) and isinstance(wanted.part, Present):
        return wanted.part.field
    raise FilterInvalid(text, 0, "one field, such as config.lr")


def is_match(wanted: Filter, values: Callable[[Field], Iterable[object]]) -> bool:
    """Whether a run is meant: the reference that databases are held against.

    Args:
        wanted: The filter.
        values: What the run has in a field: nothing, one value, or the elements of a list.
    """
    if isinstance(wanted, Not):
        return not is_match(wanted.part, values)
    if isinstance(wanted, All):
        return all(is_match(part, values) for part in wanted.parts)
    if isinstance(wanted, Either):
        return any(is_match(part, values) for part in wanted.parts)
    found = list(values(wanted.field))
    if isinstance(wanted, Present):
        return bool(found)
    if isinstance(wanted, Among):
        return any(_is_equal(value, each) for value in found for each in wanted.values)
    return any(_holds(wanted, value) for value in found)


def like_pattern(wanted: str) -> re.Pattern[str]:
    """What ``like`` means, as a regular expression for `fullmatch`."""
    translated = "".join({"%": ".*", "_": "."}.get(char, re.escape(char)) for char in wanted)
    return re.compile(translated, re.ASCII | re.IGNORECASE | re.DOTALL)


def expected_next(text: str) -> list[str]:
    """What may follow a filter that is not complete yet, for completion.

    Returns:
        Words and signs as they are typed; ``field`` and ``value`` stand for any.
    """
    from lark.exceptions import UnexpectedInput

    parser = _grammar().parse_interactive(text)
    try:
        parser.exhaust_lexer()
    except UnexpectedInput:
        return []
    names: set[str] = parser.accepts()  # type: ignore[no-untyped-call]
    return sorted({_WORDS[name] for name in names if name in _WORDS})


def _holds(wanted: Comparison, value: object) -> bool:
    if wanted.operator == "=":
        return _is_equal(value, wanted.value)
    if wanted.operator in ("like", "~"):
        text = str(wanted.value)
        if not isinstance(value, str):
            return False
        if wanted.operator == "like":
            return like_pattern(text).fullmatch(value) is not None
        return text.translate(_LOWER) in value.translate(_LOWER)
    if not _is_comparable(value, wanted.value):
        return False
    return _ORDERS[wanted.operator](value, wanted.value)


def _is_equal(value: object, other: Scalar) -> bool:
    return _is_comparable(value, other) and value == other


def _is_comparable(value: object, other: Scalar) -> bool:
    # True is no 1 here.
    if isinstance(value, bool) or isinstance(other, bool):
        return type(value) is type(other)
    if isinstance(value, str) or isinstance(other, str):
        return isinstance(value, str) and isinstance(other, str)
    return isinstance(value, (int, float))


_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}

_ORDERS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}

_GRAMMAR: Final = r"""
?start: either
?either: all (OR all)*
?all: part (AND part)*
?part: NOT part -> negated
     | "(" either ")"
     | FIELD OPERATOR value -> comparison
     | FIELD NOT? IN "(" value ("," value)* ")" -> among
     | FIELD NOT? LIKE value -> like
     | FIELD IS NOT? NULL -> presence
value: STRING | NUMBER | TRUE | FALSE

OPERATOR: "=" | "!=" | "<=" | ">=" | "<" | ">" | "~"
AND: "and"i
OR: "or"i
NOT: "not"i
IN: "in"i
LIKE: "like"i
IS: "is"i
NULL: "null"i
TRUE: "true"i
FALSE: "false"i
FIELD: /[a-z_][\w-]*(\.([\w-]+|"[^"]*"|`[^`]*`))*/i
STRING: /"([^"\\]|\\.)*"|'([^'\\]|\\.)*'/s
NUMBER: /[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?/i
%ignore /\s+/
"""

_WORDS: Final = {
    "AND": "and",
    "OR": "or",
    "NOT": "not",
    "IN": "in",
    "LIKE": "like",
    "IS": "is",
    "NULL": "null",
    "TRUE": "true",
    "FALSE": "false",
    "FIELD": "field",
    "STRING": "value",
    "NUMBER": "value",
    "OPERATOR": "= != < <= > >= ~",
    "LPAR": "(",
    "RPAR": ")",
    "COMMA": ",",
    "$END": "the end",
}

_KINDS: Final = {
    "FIELD": "a field (such as status or config.lr)",
    "OPERATOR": "a comparison (= != < <= > >= ~)",
    "AND": "`and`",
    "OR": "`or`",
    "NOT": "`not`",
    "IN": "`in`",
    "LIKE": "`like`",
    "IS": "`is`",
    "NULL": "`null`",
}

_PARTS: Final = re.compile(r'"([^"]*)"|`([^`]*)`|([^.]+)')
_BARE: Final = re.compile(r"[\w-]+(\.[\w-]+)*")
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


@functools.cache
def _grammar() -> Lark:
    from lark import Lark

    return Lark(_GRAMMAR, parser="lalr", propagate_positions=True, maybe_placeholders=False)


def _parsed(text: str) -> Tree[Token]:
    from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

    try:
        return _grammar().parse(text)
    except UnexpectedInput as error:
        is_end = isinstance(error, UnexpectedToken) and error.token.type == "$END"
        told: int | None = getattr(error, "pos_in_stream", None)
        position = len(text) if is_end or told is None else told
        names: Iterable[str] = ()
        if isinstance(error, UnexpectedToken):
            names = error.accepts
        if isinstance(error, UnexpectedCharacters):
            names = error.allowed
        raise FilterInvalid(text, position, _expected(set(names), text[position:])) from None
    except RecursionError:
        raise FilterInvalid(text, 0, "fewer parentheses") from None


def _expected(names: set[str], found: str) -> str:
    """What may stand at a place, as people say it: kinds of things first, then words."""
    if "STRING" in names:
        return _expected_value(found)
    kinds = [said for name, said in _KINDS.items() if name in names]
    words = sorted(_WORDS[name] for name in names & _WORDS.keys() - _KINDS.keys())
    *most, last = [*kinds, *words] or ["a filter"]
    return f"{', '.join(most)} or {last}" if most else last


def _expected_value(found: str) -> str:
    if found.startswith(('"', "'")):
        return f"a {found[0]} that ends the text, too"
    bare = _BARE.match(found)
    if bare and bare.group().lower() == "null":
        return "a value; what is not there is found by `is null`"
    # Most often it is a text without its quotation marks.
    example = bare.group() if bare else "digits"
    return f'a text in quotation marks, such as "{example}", a number, true or false'


def _built(tree: Tree[Token], text: str, depth: int) -> Filter:
    if not depth:
        raise FilterInvalid(text, tree.meta.start_pos, f"parts nested at most {_DEEPEST} deep")
    if tree.data in ("either", "all"):
        parts = [_built(part, text, depth - 1) for part in _trees(tree)]
        return Either(tuple(parts)) if tree.data == "either" else All(tuple(parts))
    if tree.data == "negated":
        return Not(_built(_trees(tree)[0], text, depth - 1))
    field = _field(_tokens(tree)["FIELD"], text)
    values = [_value(each) for each in _trees(tree)]
    return _condition(tree, field, values, text)


def _condition(tree: Tree[Token], field: Field, values: list[Scalar], text: str) -> Filter:
    tokens = _tokens(tree)
    if tree.data == "presence":
        return Present(field) if "NOT" in tokens else Not(Present(field))
    if not field.section and field.key in MOMENTS:
        if tree.data == "like" or tokens.get("OPERATOR") == "~":
            raise FilterInvalid(text, tree.meta.start_pos, f"{field} compared by = < <= > or >=")
        values = [_moment(value, text, tree.meta.end_pos) for value in values]
    if tree.data == "among":
        if len(values) > _MOST_VALUES:
            raise FilterInvalid(text, tree.meta.start_pos, f"at most {_MOST_VALUES} values")
        return _unless("NOT" in tokens, Among(field, tuple(values)))
    operator = "like" if tree.data == "like" else str(tokens["OPERATOR"])
    if operator in ("like", "~") and not isinstance(values[0], str):
        raise FilterInvalid(text, tree.meta.end_pos, "a text in quotation marks")
    if operator == "!=":
        return All((Present(field), Not(Comparison(field, "=", values[0]))))
    return _unless("NOT" in tokens, Comparison(field, operator, values[0]))


def _moment(value: Scalar, text: str, position: int) -> str:
    """A moment in the form that all moments of runs have, so that texts compare as moments."""
    try:
        read = datetime.fromisoformat(str(value))
    except ValueError:
        expected = "a moment in quotation marks, such as '2026-11-25' or '2026-11-25T08:30'"
        raise FilterInvalid(text, position, expected) from None
    read = (read if read.tzinfo is not None else read.replace(tzinfo=UTC)).astimezone(UTC)
    return read.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _unless(is_negated: bool, part: Filter) -> Filter:  # noqa: FBT001 -- reads as a sentence
    return Not(part) if is_negated else part


def _field(token: Token, text: str) -> Field:
    first, *rest = [next(filter(None, groups), "") for groups in _PARTS.findall(str(token))]
    position = token.start_pos or 0
    key = ".".join(rest)
    if not rest:
        if first in ATTRIBUTES:
            return Field("", first)
        key = f"{first}.KEY" if first in SEARCHED else f"config.{first}"
        attributes = ", ".join(ATTRIBUTES)
        raise FilterInvalid(text, position, f"one of {attributes}, or section.key, such as {key}")
    if first == _VARIABLES:
        return Field("environment", f"{_VARIABLES}.{key}")
    if first in ("run", "attributes") and key in ATTRIBUTES:
        return Field("", key)
    if first in _UNSEARCHED:
        raise FilterInvalid(text, position, _UNSEARCHED[first])
    if first not in SEARCHED:
        raise FilterInvalid(text, position, f"a section: {', '.join(SEARCHED)}")
    return Field(first, key)


def _value(tree: Tree[Token]) -> Scalar:
    token = next(iter(_tokens(tree).values()))
    if token.type == "STRING":
        return _ESCAPED.sub(r"\1", str(token)[1:-1])
    if token.type == "NUMBER":
        return int(token) if re.fullmatch(r"[+-]?\d+", token) else float(token)
    return token.type == "TRUE"


def _within(part: Filter) -> str:
    return f"({written(part)})" if isinstance(part, All | Either) else written(part)


def _written_field(field: Field) -> str:
    if not field.section:
        return field.key
    if _BARE.fullmatch(field.key):
        return str(field)
    if '"' not in field.key:
        return f'{field.section}."{field.key}"'
    if "`" not in field.key:
        return f"{field.section}.`{field.key}`"
    expected = f"a key without one of both quotation marks, found {field.key!r}"
    raise FilterInvalid(field.key, 0, expected)


def _written_value(value: Scalar) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
    return repr(value)


def _trees(tree: Tree[Token]) -> list[Tree[Token]]:
    from lark import Tree

    return [child for child in tree.children if isinstance(child, Tree)]


def _tokens(tree: Tree[Token]) -> dict[str, Token]:
    from lark import Token

    return {child.type: child for child in tree.children if isinstance(child, Token)}
