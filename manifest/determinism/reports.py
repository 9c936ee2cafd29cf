"""What a call of this package found, what it did, and for what it was too late."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

Outcome = Literal["set", "equal already", "pending", "too late", "failed"]
"""``pending`` is done as soon as the library is imported, or the device started."""


class Item(NamedTuple):
    """What was done about one thing."""

    what: str
    outcome: Outcome
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.outcome}" + (f" ({self.reason})" if self.reason else "")


class Report:
    """What was done, one item for each thing."""

    def __init__(self, title: str, items: Iterable[Item]) -> None:
        self.title = title
        self.items = tuple(items)

    @property
    def is_complete(self) -> bool:
        """Whether everything is as it was asked for, or will be where the program comes to it."""
        return not any(item.outcome in ("too late", "failed") for item in self.items)

    def __getitem__(self, what: str) -> Item:
        """The item of this name.

        Raises:
            KeyError: There is none.
        """
        for item in self.items:
            if item.what == what:
                return item
        raise KeyError(what)

    def __str__(self) -> str:
        return "\n".join([self.title, *(f"  {item}" for item in self.items)])

    def __repr__(self) -> str:
        return f"<Report {self.title}: {len(self.items)} items>"
