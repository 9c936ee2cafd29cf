"""What of a manifest can be searched: every pair of a key and a value, as a term."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import islice
from typing import Final, NamedTuple

from manifest.canonical import Json
from manifest.filtering import Scalar
from manifest.summaries import LABEL_LENGTHS, label

OWN: Final = ("config", "links", "seeds")
"""Sections whose terms belong to the run itself; those of `tables.SHARED` belong to the section."""

# Of what is another in every run, draws and entropy would only take room.
_UNSEARCHED: Final = {"seeds": ("draws", "entropy", "os_entropy_uses")}
NO_SECTION: Final = ""
"""The section of terms that are no pair of a manifest."""

_MOST_TERMS = 5000
_MOST_ELEMENTS = 32
_DEEPEST = 8
_EXACT = 2**53
_REMEMBERED: Final = 2**13
_LONG: Final = 200


class Term(NamedTuple):
    """One pair, under a number made of it, so that whoever meets it first need not ask."""

    id: int
    section: str
    key: str
    kind: str
    """``s`` a text, ``n`` a number, ``b`` a truth value."""
    value: str
    number: float | None
    project: str = ""
    """Of the run whose term it is; none for that of a section that many share."""

    @classmethod
    def of(cls, section: str, key: str, value: Scalar) -> Term:
        """The term of a value; numbers that are equal have the same one."""
        kind, text, number = _told(value)
        return cls(_pair_id(section, key, kind, text), section, key, kind, text, number)


def term_id(section: str, key: str, value: Scalar) -> int:
    """Number a pair: 64 bits of a hash, signed, as databases count."""
    kind, text, _ = _told(value)
    return _pair_id(section, key, kind, text)


def own_terms(project: str, section: str, values: Mapping[str, Json]) -> Iterator[Term]:
    """The terms of a run's own section, which are those of its project."""
    return _each_once(section, values, partial(_own, project))


def own_id(project: str, number: int) -> int:
    """Number a term of a project, so that the number without it can be had back."""
    return number ^ _hash(label(project, LABEL_LENGTHS["project"]) or "")


def terms_of(section: str, values: Mapping[str, Json]) -> Iterator[Term]:
    """The terms of a section, each once.

    A map within is walked, and its keys are joined by dots; a list gives a term for each element.
    What was not captured, is absent or could not be read has none.
    """
    return _each_once(section, values, Term.of)


def _each_once(
    section: str, values: Mapping[str, Json], term_of: Callable[[str, str, Scalar], Term]
) -> Iterator[Term]:
    left_out = _UNSEARCHED.get(section, ())
    chosen = {key: value for key, value in values.items() if key not in left_out}
    terms = [term_of(section, key, value) for key, value in _leaves(chosen)]
    found = {term.id: term for term in terms}
    repeated = _repeated([term.key for term in found.values()])
    # Of several values under one key one may be below 1, and another above 9.
    several = (term_of(NO_SECTION, f"{section}.{key}", True) for key in repeated)  # noqa: FBT003
    return islice((*several, *found.values()), _MOST_TERMS)


def _repeated(keys: Sequence[str]) -> list[str]:
    if len(set(keys)) == len(keys):  # as most often, and a fifth of the time it takes to count
        return []
    return [key for key, count in Counter(keys).items() if count > 1]


def _own(project: str, section: str, key: str, value: Scalar) -> Term:
    # Most values of a configuration are those of the run before; few of the long ones are.
    is_long = isinstance(value, str) and len(value) > _LONG
    return (_own_term if is_long else _known_own_term)(project, section, key, value)


def _own_term(project: str, section: str, key: str, value: Scalar) -> Term:
    term = Term.of(section, key, value)
    return term._replace(id=own_id(project, term.id), project=project)


_known_own_term = lru_cache(_REMEMBERED, typed=True)(_own_term)  # 1 is equal to 1.0 and to True


def values_of(section: Mapping[str, Json], key: str) -> list[Scalar]:
    """What a section has under a key as filters name it: the reference for `terms_of`."""
    near = {name: section[name] for name in _leading(key) if name in section}
    return [value for name, value in _leaves(near) if name == key]


def searched_values(section: str, values: Mapping[str, Json], key: str) -> list[Scalar]:
    """What a section has under a key as far as there are terms of it."""
    if 2 * _most_leaves(values) <= _MOST_TERMS:
        left_out = _UNSEARCHED.get(section, ())
        return values_of({n: each for n, each in values.items() if n not in left_out}, key)
    kept = (
        term for term in terms_of(section, values) if (term.section, term.key) == (section, key)
    )
    return [scalar(term.kind, term.value, term.number) for term in kept]


def _most_leaves(values: Mapping[str, Json]) -> int:
    """No section has more, of so many keys of which some have values within."""
    within = {key: value for key, value in values.items() if isinstance(value, (dict, list))}
    return len(values) + sum(1 for _ in _leaves(within))


@lru_cache
def _leading(key: str) -> tuple[str, ...]:
    """Keys of a section under which something may be that has this key."""
    names = key.split(".")
    return tuple(".".join(names[:count]) for count in range(1, len(names) + 1))


def scalar(kind: str, value: str, number: float | None) -> Scalar:
    """The value of a term, as its columns have it."""
    if kind == "b":
        return value == "true"
    if kind == "n" and number is not None:
        return int(number) if number.is_integer() and abs(number) <= _EXACT else number
    return value


def double(value: float) -> float:
    """A number as databases keep it; one beyond all bounds is infinite."""
    try:
        return float(value) + 0.0  # no negative zero
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _pair_id(section: str, key: str, kind: str, text: str) -> int:
    return _hash(f"{section}\0{key}\0{kind}\0{text}")


def _hash(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _told(value: Scalar) -> tuple[str, str, float | None]:
    if isinstance(value, bool):
        return "b", "true" if value else "false", None
    if isinstance(value, str):
        return "s", value, None
    number = double(value)
    return "n", repr(number) if abs(number) <= _EXACT else str(value), number


def _leaves(values: Mapping[str, Json]) -> Iterator[tuple[str, Scalar]]:
    pending: list[tuple[str, Json, int]] = [(key, value, 1) for key, value in values.items()]
    while pending:
        key, value, depth = pending.pop()
        if isinstance(value, (str, int, float)):
            yield key, value
        elif isinstance(value, dict):
            told = _untagged(value)
            if told is not None:
                yield key, told
            elif not _is_tagged(value) and depth < _DEEPEST:
                pending += [(f"{key}.{name}", item, depth + 1) for name, item in value.items()]
        elif isinstance(value, list):
            some = value[:_MOST_ELEMENTS]
            yield from ((key, item) for item in some if isinstance(item, (str, int, float)))


def _is_tagged(value: Mapping[str, Json]) -> bool:
    return len(value) == 1 and next(iter(value)).startswith("$")


def _untagged(value: Mapping[str, Json]) -> Scalar | None:
    """The value that a stand-in stands for, where it is one to be searched."""
    if not _is_tagged(value):
        return None
    tag, told = next(iter(value.items()))
    if tag == "$int" and isinstance(told, str):
        try:
            return int(told, 0)
        except ValueError:
            return None
    if tag == "$redacted":
        return "[redacted]"
    return told if tag in ("$repr", "$float") and isinstance(told, str) else None
