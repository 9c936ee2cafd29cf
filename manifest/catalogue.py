"""The settings catalogue: what can change a result, whether it does, and why.

The entries are in ``catalogue.toml``. A training process reads only what it needs to capture and
restore settings, from ``settings.json``, which ``python -m manifest.catalogue`` writes from it.
"""

from __future__ import annotations

import functools
import json
import tomllib
from collections import defaultdict
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

Impact = Literal["certain", "possible", "unknown", "performance", "informational"]
Scope = Literal["process", "loader", "gpu", ""]
When = Literal[
    "process-start", "before-import", "before-cuda-init", "runtime", "constructor", "read-only"
]
Kind = Literal["bool", "integer", "number", "choice", "text", "integers", "permutation", ""]

_CATALOGUE = Path(__file__).with_name("catalogue.toml")
_PROCESS_SETTINGS = Path(__file__).with_name("settings.json")
_FIELDS_OF_PROCESS_SETTINGS = (
    "key",
    "library",
    "needs",
    "read",
    "set",
    "kind",
    "allowed",
    "accepts_none",
    "is_slow",
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One entry of the catalogue; ``catalogue.toml`` says what each field means."""

    section: str
    key: str
    impact: Impact
    reason: str
    source: str
    when: When
    evidence: Literal["measured", "documented"] = "documented"
    default: str = ""
    versions: str = ""
    scope: Scope = ""
    library: str = ""
    needs: str = ""
    read: str = ""
    set: str = ""
    kind: Kind = ""
    allowed: tuple[str | int | float, ...] = ()
    accepts_none: bool = False
    is_slow: bool = False

    @property
    def is_pattern(self) -> bool:
        """Whether the key stands for several keys."""
        return "*" in self.key


def lookup(section: str, key: str) -> Setting | None:
    """Find what is known of a key: by its whole name, else by the first pattern that fits."""
    known = _catalogue()
    exact = known.exact.get((section, key))
    if exact is not None:
        return exact
    patterns = known.patterns.get(section, ())
    return next((setting for setting in patterns if fnmatchcase(key, setting.key)), None)


def settings_of(scope: Scope = "process") -> tuple[Setting, ...]:
    """The entries of a scope, in the order in which settings are restored."""
    return tuple(setting for setting in all_settings() if setting.scope == scope)


def all_settings() -> tuple[Setting, ...]:
    """Every entry, in the order of the catalogue."""
    return _catalogue().settings


def ignored_names() -> dict[str, str]:
    """Switches of libraries that are deliberately not in the catalogue, with the reason."""
    return dict(_catalogue().ignored)


def process_settings_json() -> str:
    """The text of ``settings.json``: one process setting a line, without what people read."""
    plain_values = {field.name: field.default for field in fields(Setting)}
    lines = []
    for setting in settings_of("process"):
        entry = {name: getattr(setting, name) for name in _FIELDS_OF_PROCESS_SETTINGS}
        kept = {name: value for name, value in entry.items() if value != plain_values[name]}
        lines.append(json.dumps(kept))
    return "[\n" + ",\n".join(lines) + "\n]\n"


@dataclass(frozen=True, slots=True)
class _Catalogue:
    settings: tuple[Setting, ...]
    exact: dict[tuple[str, str], Setting]
    patterns: dict[str, list[Setting]]
    ignored: dict[str, str]


@functools.cache
def _catalogue() -> _Catalogue:
    with _CATALOGUE.open("rb") as file:
        content = tomllib.load(file)
    settings = tuple(setting for entry in content["setting"] for setting in _settings(entry))
    patterns = defaultdict(list)
    for setting in settings:
        if setting.is_pattern:
            patterns[setting.section].append(setting)
    return _Catalogue(
        settings=settings,
        exact={(each.section, each.key): each for each in settings if not each.is_pattern},
        patterns=dict(patterns),
        ignored=content["ignored"],
    )


def _settings(entry: dict[str, Any]) -> list[Setting]:
    """One setting for each key that the entry describes."""
    keys = entry.pop("keys")
    entry["allowed"] = tuple(entry.get("allowed", ()))
    return [Setting(key=key, **entry) for key in keys]


if __name__ == "__main__":
    _PROCESS_SETTINGS.write_text(process_settings_json(), encoding="utf-8")
