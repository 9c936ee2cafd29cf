"""Settings of the libraries that the program imported: effective values, read and put back.

What is read and how stands in the catalogue. Nothing is imported to read a setting, and no
accelerator is started; a library that the program has not imported has no settings yet.
"""

from __future__ import annotations

import functools
import gc
import json
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

from manifest.canonical import ABSENT, Json, failed, plain
from manifest.restoring import RestoredItem, RestoreOutcome


def capture_settings(*, library: str | None = None) -> dict[str, Json]:
    """Read the settings that are quick to read, in the thread whose settings are meant.

    Args:
        library: Only settings of this module and those inside it, such as ``torch``. A library
            that is asked for by name may be about to end its import; others are left out until
            theirs is over.

    Returns:
        The effective value of each setting; a setting that could not be read has the reason.
    """
    return _captured(library, is_slow=False)


def capture_slow_settings(*, library: str | None = None) -> dict[str, Json]:
    """Read the settings that take time; they are the same in every thread."""
    return _captured(library, is_slow=True)


def read_settings(keys: Iterable[str], *, library: str | None = None) -> dict[str, Json]:
    """Read these settings, as far as this build has them and their library is there."""
    return _captured(library, keys=frozenset(keys))


def restore_settings(
    recorded: Mapping[str, Json], *, library: str | None = None
) -> list[RestoredItem]:
    """Set what differs from the recorded values, from the general to the particular.

    A value that is equal already is never written: writing a default back can stop a setting from
    following a more general one. The values come from a manifest, so each is only passed on if
    it is one that the catalogue allows.

    Args:
        recorded: Effective values by key, as captured.
        library: Only settings of this module and those inside it.
    """
    return _for_each(recorded, library, _restored)


def obstacles(recorded: Mapping[str, Json]) -> list[RestoredItem]:
    """What `restore_settings` would not put back, without setting anything."""
    return [item for item in _for_each(recorded, None, _untouched) if not item.is_settled]


def libraries_of(keys: Iterable[str]) -> dict[str, list[str]]:
    """The keys by the module that must be there to set them; unknown ones are left out."""
    found: dict[str, list[str]] = {}
    for entry in _entries():
        if entry.key in keys:
            found.setdefault(entry.library, []).append(entry.key)
    return found


def prepare() -> None:
    """Do now what the first capture would do once."""
    for entry in _entries():
        if not entry.is_slow:
            _ = entry.needs_code, entry.read_code


def refusal(key: str, value: Json) -> str | None:
    """Say why a setting cannot be set to a value; None where it can, as far as is known here."""
    entry = next((entry for entry in _entries() if entry.key == key), None)
    if entry is None or not entry.set:
        return "nothing sets it in a running process"
    present = value if isinstance(value, list) else []  # their number is known there alone
    if not _is_allowed(entry, value, present):
        return f"expected {_expectation(entry)}, found {_shown(value)}"
    return None


class _Entry:
    """One process setting of the catalogue, its expressions compiled at first use."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.key: str = fields["key"]
        self.library: str = fields.get("library", "")
        self.is_slow: bool = fields.get("is_slow", False)
        self.set: str = fields.get("set", "")
        self.kind: str = fields.get("kind", "")
        self.allowed: list[Any] = fields.get("allowed", [])
        self.accepts_none: bool = fields.get("accepts_none", False)
        self._needs: str = fields.get("needs", "")
        self._read: str = fields["read"]

    def is_of(self, library: str | None) -> bool:
        return library is None or f"{self.library}.".startswith(f"{library}.")

    @functools.cached_property
    def needs_code(self) -> CodeType | None:
        return self._compiled(self._needs) if self._needs else None

    @functools.cached_property
    def read_code(self) -> CodeType:
        return self._compiled(self._read)

    def _compiled(self, expression: str) -> CodeType:
        return compile(expression, f"<catalogue: {self.key}>", "eval")


_Restore = Callable[[_Entry, Json, dict[str, Any]], RestoredItem]

_NOT_HERE: Final = ABSENT
"""The value of a setting that this build, version or state of the library does not have."""


@functools.cache
def _entries() -> list[_Entry]:
    text = Path(__file__).with_name("settings.json").read_text(encoding="utf-8")
    return [_Entry(fields) for fields in json.loads(text)]


def _captured(
    library: str | None, *, is_slow: bool = False, keys: Collection[str] | None = None
) -> dict[str, Json]:
    names = _names()
    values = {}
    for entry in _there(library):
        if entry.is_slow is is_slow if keys is None else entry.key in keys:
            value = _value(entry, names)
            if value is not _NOT_HERE:
                values[entry.key] = value
    return values


def _there(library: str | None) -> Iterator[_Entry]:
    """Entries whose library is there: imported, and not still being imported."""
    is_there: dict[str, bool] = {}
    for entry in _entries():
        if not entry.is_of(library):
            continue
        if entry.library not in is_there:
            is_there[entry.library] = _is_there(entry.library, asked_for=library)
        if is_there[entry.library]:
            yield entry


def _is_there(name: str, *, asked_for: str | None) -> bool:
    if not name:
        return True
    package = name.partition(".")[0]
    modules = (sys.modules.get(package), sys.modules.get(name))
    if None in modules:
        return False
    return asked_for is not None or not any(_is_initializing(module) for module in modules)


def _is_initializing(module: ModuleType | None) -> bool:
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def _names() -> dict[str, Any]:
    """What the expressions of the catalogue may name."""
    libraries = {entry.library.partition(".")[0] for entry in _entries()} - {""}
    return {name: sys.modules.get(name) for name in libraries} | {"gc": gc, "sys": sys}


def _value(entry: _Entry, names: dict[str, Any]) -> Json:
    try:
        # The text evaluated is the catalogue's, which is part of this package.
        if entry.needs_code is not None and not eval(entry.needs_code, names):  # noqa: S307
            return _NOT_HERE
        return plain(eval(entry.read_code, names))  # noqa: S307
    except Exception as error:
        return failed(error)


def _for_each(
    recorded: Mapping[str, Json], library: str | None, restore: _Restore
) -> list[RestoredItem]:
    names = _names()
    entries = [entry for entry in _entries() if entry.key in recorded and entry.is_of(library)]
    items = [
        restore(entry, recorded[entry.key], names)
        if _is_there(entry.library, asked_for=library)
        else RestoredItem(entry.key, "skipped", f"{entry.library} is not imported here")
        for entry in entries
    ]
    if library is not None:
        return items
    unknown = sorted(recorded.keys() - {entry.key for entry in _entries()})
    return items + [RestoredItem(key, "skipped", "not in the catalogue") for key in unknown]


def _restored(entry: _Entry, recorded: Json, names: dict[str, Any]) -> RestoredItem:
    untouched = _untouched(entry, recorded, names)
    if untouched.outcome != "restored":
        return untouched
    try:
        # The statement is the catalogue's; of the recorded run it sees only this checked value.
        exec(entry.set, names | {"v": recorded})  # noqa: S102
        outcome, reason = _verified(entry, recorded, names)
    except Exception as error:
        outcome, reason = "failed", f"{type(error).__name__}: {error}"[:500]
    return RestoredItem(entry.key, outcome, reason)


def _untouched(entry: _Entry, recorded: Json, names: dict[str, Any]) -> RestoredItem:
    """What comes of a setting as far as that is known before it is set."""
    try:
        outcome, reason = _foreseen(entry, recorded, names)
    except Exception as error:
        outcome, reason = "failed", f"{type(error).__name__}: {error}"[:500]
    return RestoredItem(entry.key, outcome, reason)


def _foreseen(entry: _Entry, recorded: Json, names: dict[str, Any]) -> tuple[RestoreOutcome, str]:
    present = _value(entry, names)
    if present is _NOT_HERE:
        return "skipped", f"this build or state of {entry.library} does not have it"
    if _is_same(present, recorded):
        return "equal already", ""
    if isinstance(recorded, dict):
        return "skipped", "the recorded run has no value of it"
    if not entry.set:
        return "skipped", "nothing sets it in a running process"
    if not _is_allowed(entry, recorded, present):
        return "failed", f"expected {_expectation(entry)}, found {_shown(recorded)}; not set"
    return "restored", ""


def _verified(entry: _Entry, recorded: Json, names: dict[str, Any]) -> tuple[RestoreOutcome, str]:
    found = _value(entry, names)
    if _is_same(found, recorded):
        return "restored", ""
    return "failed", f"set to {_shown(recorded)}, but reads {_shown(found)}"


def _is_same(first: Json, second: Json) -> bool:
    return type(first) is type(second) and bool(first == second)


def _is_allowed(entry: _Entry, value: Json, present: Json) -> bool:
    if value is None:
        return entry.accepts_none
    if entry.kind in ("integers", "permutation"):
        return _is_list_of_integers(value, len(present)) and (
            sorted(value) == sorted(present)
            if entry.kind == "permutation"
            else all(_is_within(item, int, entry.allowed) for item in value)
        )
    match entry.kind:
        case "bool":
            return type(value) is bool
        case "choice":
            return any(_is_same(value, choice) for choice in entry.allowed)
        case "text":
            return type(value) is str and re.fullmatch(entry.allowed[0], value) is not None
        case "integer":
            return _is_within(value, int, entry.allowed)
        case "number":
            return _is_within(value, float, entry.allowed)
    return False


def _is_within(value: Json, type_: type, limits: list[Any]) -> bool:
    return type(value) is type_ and bool(limits[0] <= value <= limits[1])


def _is_list_of_integers(value: Json, length: int) -> bool:
    return type(value) is list and len(value) == length and all(type(item) is int for item in value)


def _expectation(entry: _Entry) -> str:
    if entry.kind == "choice":
        return "one of " + ", ".join(repr(choice) for choice in entry.allowed)
    if entry.kind in ("integer", "number", "integers"):
        return f"{entry.kind} from {entry.allowed[0]} to {entry.allowed[1]}"
    return f"{entry.kind} {' '.join(entry.allowed)}".strip()


def _shown(value: Json) -> str:
    if value is None or isinstance(value, (bool, float, str)):
        return repr(value)[:80]
    if type(value) is int and abs(value) < 2**64:
        return str(value)
    return f"a value of type {type(value).__name__}"
