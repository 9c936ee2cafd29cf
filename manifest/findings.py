"""What two runs do not agree on, and what can be said of it."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from manifest import catalogue
from manifest.canonical import Digest, Json, checked_digest
from manifest.models import Impact

Sections = Mapping[str, Mapping[str, Json]]
Blobs = Callable[[Digest], bytes | None]

_MOST_RENAMED = 50
_LARGEST_RENAMED_BYTES = 500_000
_LEAST_ALIKE = 0.5

_SET_BY_PROGRAM = "env_now."
_LONGEST_KEY = 200  # that is kept in memory; keys come from strangers


class Judgement(NamedTuple):
    """What a difference can do, why, and how that is known."""

    impact: Impact
    reason: str
    source: str = ""


DROPPED: Final = Judgement("informational", "")
"""The answer of a rule for what identifies a run and decides nothing."""

UNKNOWN: Final = Judgement("unknown", "no rule is known for this key")
"""The answer where neither a rule nor the catalogue knows."""


class Found(NamedTuple):
    """One key on which two runs do not agree, not judged yet."""

    section: str
    path: tuple[str, ...]
    key: str
    before: Json
    after: Json
    was_captured_before: bool = True
    was_captured_after: bool = True

    @property
    def is_in_both(self) -> bool:
        """Whether both runs have a value here, not merely an answer."""
        captured = self.was_captured_before and self.was_captured_after
        is_lacking = is_tagged(self.before, "$absent") or is_tagged(self.after, "$absent")
        return captured and not is_lacking

    @property
    def values(self) -> tuple[Json, Json]:
        """Both values, in order."""
        return self.before, self.after


@dataclass(frozen=True)
class Pair:
    """The two runs that a difference lies between, and every key on which they differ."""

    before: Sections
    after: Sections
    before_id: str = ""
    blobs: Blobs | None = None
    differing: frozenset[tuple[str, str]] = field(default=frozenset())

    def values(self, section: str, key: str) -> tuple[Json, Json]:
        """What the runs say about a key; None where it was not captured."""
        return self.before.get(section, {}).get(key), self.after.get(section, {}).get(key)

    def maps(self, section: str, key: str) -> tuple[dict[str, Json], dict[str, Json]] | None:
        """The maps under a key, if both runs captured one."""
        before, after = self.values(section, key)
        return (before, after) if isinstance(before, dict) and isinstance(after, dict) else None

    def differs(self, section: str, key: str) -> bool:
        """Whether the runs disagree on a key of a section, or on one in the map under it."""
        return (section, key) in self.differing

    def agrees(self, section: str, key: str) -> bool:
        """Whether both runs captured a key, with the same value."""
        return None not in self.values(section, key) and not self.differs(section, key)

    @functools.cached_property
    def renamed(self) -> Mapping[str, str]:
        """Source that only one run executed, by name, with the name of its like in the other."""
        files = self.maps("code", "files")
        if files is None or self.blobs is None:
            return {}
        before, after = (
            {name: each[name] for name in each.keys() - files[1 - n].keys()}
            for n, each in enumerate(files)
        )
        return _paired(self._lines(before), self._lines(after))

    def _lines(self, digests: Mapping[str, Json]) -> dict[str, Counter[bytes]]:
        texts = {name: self.text(digests[name]) for name in sorted(digests)[:_MOST_RENAMED]}
        return {
            name: Counter(line.strip() for line in text.splitlines())
            for name, text in texts.items()
            if text and len(text) <= _LARGEST_RENAMED_BYTES
        }

    def text(self, digest: Json) -> bytes | None:
        """The bytes of a blob of either run, if they are to be had."""
        if self.blobs is None or not isinstance(digest, str):
            return None
        try:
            return self.blobs(checked_digest(digest))
        except ValueError:
            return None


Rule = Callable[[Found, Pair], Judgement | None]
"""Looks at one difference with both runs at hand; says None where another rule must be asked."""


def _paired(
    before: Mapping[str, Counter[bytes]], after: Mapping[str, Counter[bytes]]
) -> dict[str, str]:
    """Names of texts of which more than half of the lines are the same, the most alike first."""
    alike = [
        (_share(one, other), min(name, other_name), max(name, other_name))
        for name, one in before.items()
        for other_name, other in after.items()
    ]
    found: dict[str, str] = {}
    for share, name, other_name in sorted(alike, reverse=True):
        if share > _LEAST_ALIKE and name not in found and other_name not in found:
            found |= {name: other_name, other_name: name}
    return found


def _share(one: Counter[bytes], other: Counter[bytes]) -> float:
    return (one & other).total() / max(one.total(), other.total())


def is_tagged(value: Json, *tags: str) -> bool:
    """Whether a value is one of the ``$`` forms of `canonical`: of these, or of any."""
    if not isinstance(value, dict) or len(value) != 1:
        return False
    (tag,) = value
    return tag in tags if tags else tag.startswith("$")


def written(value: Json) -> str | None:
    """One text for one value; None for what is nested too deep or holds too large a number."""
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    except (RecursionError, TypeError, ValueError):
        return None


def catalogued(found: Found, _: Pair) -> Judgement | None:
    """What the catalogue says of the key alone."""
    # What a program set itself is known under the name that it inherited.
    is_set = found.key.startswith(_SET_BY_PROGRAM)
    key = "env." + found.key[len(_SET_BY_PROGRAM) :] if is_set else found.key
    look_up = _looked_up if len(key) < _LONGEST_KEY else _looked_up.__wrapped__
    return look_up(found.section, key)


@functools.lru_cache(maxsize=8192)
def _looked_up(section: str, key: str) -> Judgement | None:
    setting = catalogue.lookup(section, key)
    return None if setting is None else Judgement(setting.impact, setting.reason, setting.source)
