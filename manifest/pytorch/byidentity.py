"""What is known of objects, for as long as they live.

By identity: a loader or an iterator of the program's own may be equal to another, or not hashable.
Unlike `weakref.WeakKeyDictionary`, it asks the object nothing.
"""

from __future__ import annotations

import weakref
from typing import Any, Generic, TypeVar

_key_of = object.__hash__  # as `id`, of which the interpreter tells its audit hooks each time


class Known(weakref.ref[Any]):
    """What is known of an object, which is the object while that lives, when it is called."""

    __slots__ = ("_key",)

    _key: int

    # Two references are equal where their objects are; those are not asked.
    __eq__ = object.__eq__
    __hash__ = object.__hash__


_K = TypeVar("_K", bound=Known)


class ByIdentity(Generic[_K]):
    """What is known of each object."""

    def __init__(self) -> None:
        known: dict[int, _K] = {}

        def forget(dead: Any) -> None:
            key = dead._key
            if known.get(key) is dead:  # else another object has this key by now
                del known[key]

        self._known = known
        self.forget = forget
        """To be called with what is known of an object when that is gone."""

    def add(self, subject: Any, known: _K) -> None:
        """Know this of an object until it is gone."""
        known._key = key = _key_of(subject)
        self._known[key] = known

    def of(self, subject: Any) -> _K | None:
        """What is known of an object; None if nothing is."""
        known = self._known.get(_key_of(subject))
        return known if known is not None and known() is subject else None

    def living(self) -> list[_K]:
        """What is known of the objects that live, in the order in which they came."""
        return [known for known in list(self._known.values()) if known() is not None]
