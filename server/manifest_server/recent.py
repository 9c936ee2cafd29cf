"""What was asked for last, as far as it fits into so many bytes; threads may share it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Generic, TypeVar

_Value = TypeVar("_Value")


class Recent(Generic[_Value]):
    """Values that never change, by key; what was not asked for longest is forgotten first.

    Args:
        most_bytes: How much is kept.
        size_of: What a value counts for.
    """

    def __init__(self, most_bytes: int, size_of: Callable[[_Value], int]) -> None:
        self._most_bytes = most_bytes
        self._size_of = size_of
        self._bytes = 0
        self._values: OrderedDict[str, _Value] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._values)

    def get(self, keys: Iterable[str]) -> dict[str, _Value]:
        """Those that there are."""
        with self._lock:
            found = {key: self._values[key] for key in keys if key in self._values}
            for key in found:
                self._values.move_to_end(key)
            return found

    def add(self, values: Iterable[tuple[str, _Value]]) -> None:
        """Keep values by their keys."""
        with self._lock:
            for key, value in values:
                if key not in self._values:
                    self._values[key] = value
                    self._bytes += self._size_of(value)
            while self._bytes > self._most_bytes:
                _, forgotten = self._values.popitem(last=False)
                self._bytes -= self._size_of(forgotten)
