"""What is known of objects, for as long as they live.

By identity: a loader or an iterator of the program's own may be equal to another, or not hashable.
Unlike `weakref.WeakKeyDictionary`, it asks the object nothing.
"""

from __future__ import annotations

import weakref
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")


class ByIdentity(Generic[_T]):
    """A value for each object."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Any], _T]] = {}

    def add(self, key: Any, value: _T) -> None:
        """Keep a value, which must not hold the object itself, until the object is gone."""
        number, entries = id(key), self._entries

        def forget(dead: weakref.ref[Any]) -> None:
            # Another object may have this number by now.
            if number in entries and entries[number][0] is dead:
                del entries[number]

        entries[number] = (weakref.ref(key, forget), value)

    def of(self, key: Any) -> _T | None:
        """The value of an object; None if there is none."""
        entry = self._entries.get(id(key))
        return entry[1] if entry is not None and entry[0]() is key else None

    def living(self) -> list[_T]:
        """The values of the objects that live, in the order in which they came."""
        return [value for key, value in list(self._entries.values()) if key() is not None]
