"""The sections of a manifest, as they are laid out for people: keys, values, what lies in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from manifest.canonical import Json
from manifest.catalogue import Setting, lookup
from manifest.describing import describe, in_reading_order, is_absent
from manifest.engines import engine
from manifest.findings import is_tagged
from manifest.models import SECTIONS, Impact, Manifest

_IN_FOCUS: Final = 3
_LONGEST_IN_FOCUS: Final = 60
_NOTHING: Final[tuple[Json, ...]] = (None, "", [], {})
_MOST_INNER: Final = 2000
_OF_FILES: Final = frozenset({"inputs", "outputs"})
_CATALOGUED: Final = frozenset({"environment", "hardware", "settings"})
_LONGEST_KEY: Final = 200  # that is kept in memory; keys come from strangers
_looked_up: Final = lru_cache(maxsize=4096)(lookup)
_COMPACT: Final = frozenset({"packages"})


@dataclass(frozen=True, slots=True)
class Item:
    """A key of a section: a value, or a map of its own."""

    key: str
    value: Json
    inner: Sequence[tuple[str, Json]] = ()
    more: int = 0
    """How many pairs of the map are left out."""
    focus: str = ""
    """What the map says first, on one line."""
    engine: str = ""
    """Of a generator: how it makes numbers, and how far it is."""
    impact: Impact | None = None
    """What another value could do to the results, as far as the catalogue knows."""
    reason: str = ""

    @property
    def blob(self) -> str:
        """The digest of the file that the map describes, if it was kept."""
        found = dict(self.inner).get("blob")
        return found if isinstance(found, str) else ""

    @property
    def is_absent(self) -> bool:
        """Whether the run says that there is none."""
        return is_absent(self.value)


@dataclass(frozen=True, slots=True)
class Section:
    """A section of a manifest."""

    name: str
    items: Sequence[Item]
    focus: str
    """What it says first, on one line."""
    is_compact: bool

    @property
    def is_of_files(self) -> bool:
        """Whether its keys are paths."""
        return self.name in _OF_FILES

    @property
    def present(self) -> int:
        """How many keys have a value."""
        return sum(not item.is_absent for item in self.items)


def sections_of(manifest: Manifest) -> list[Section]:
    """Every section that holds something, in the order in which people read them."""
    names = [*SECTIONS, *sorted(set(manifest.sections) - set(SECTIONS))]
    return [
        _section(name, manifest.sections[name]) for name in names if manifest.sections.get(name)
    ]


def _section(name: str, values: Mapping[str, Json]) -> Section:
    pairs = in_reading_order(name, values)
    items = [_item(name, key, value) for key, value in pairs]
    focus = _focus(pairs) or next((item.focus for item in items if item.focus), "")
    return Section(name, items, focus, name in _COMPACT)


def _item(section: str, key: str, value: Json) -> Item:
    known = _known(section, key) if section in _CATALOGUED and not is_absent(value) else None
    impact, reason = (known.impact, known.reason) if known is not None else (None, "")
    if not _is_map(value):
        return Item(key, value, impact=impact, reason=reason)
    pairs = in_reading_order(section, value)
    return Item(
        key,
        value,
        pairs[:_MOST_INNER],
        more=max(0, len(pairs) - _MOST_INNER),
        focus=_focus(pairs),
        engine=engine(value) if section == "generators" else "",
        impact=impact,
        reason=reason,
    )


def _known(section: str, key: str) -> Setting | None:
    # What a program set itself is known under the name that it inherited.
    look_up = _looked_up if len(key) < _LONGEST_KEY else lookup
    return look_up(
        section, "env." + key.removeprefix("env_now.") if key.startswith("env_now.") else key
    )


def _is_map(value: Json) -> bool:
    return isinstance(value, dict) and bool(value) and not is_tagged(value)


def _focus(pairs: Sequence[tuple[str, Json]]) -> str:
    said: list[str] = []
    for key, value in pairs:
        if value not in _NOTHING and not _is_map(value) and not is_absent(value):
            each = f"{key} {describe(value)}"
            said += [each] if len(each) <= _LONGEST_IN_FOCUS else []
        if len(said) == _IN_FOCUS:
            break
    return " · ".join(said)
