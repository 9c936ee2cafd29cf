"""What came of putting things back: one item for each, and the report of them all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, Protocol

RestoreOutcome = Literal["restored", "equal already", "pending", "skipped", "failed"]
"""``pending`` is what will be put back later, where the program comes to it."""

_MOST_SHOWN = 20


class RestoredItem(NamedTuple):
    """What came of putting one thing back; `restored` only if it was read back equal."""

    what: str
    outcome: RestoreOutcome
    """``restored``, ``equal already``, ``pending``, ``skipped`` or ``failed``."""
    reason: str = ""
    number: int = 1
    """How many things this one item stands for."""

    def __str__(self) -> str:
        return f"{self.what}: {self.outcome}" + (f" ({self.reason})" if self.reason else "")

    @property
    def is_settled(self) -> bool:
        """Whether it is as it was recorded, or will be where the program comes to it."""
        return self.outcome in ("restored", "equal already", "pending")


class RestoreReport:
    """What was put back into a living program, and what was not."""

    def __init__(self, run: str, items: Iterable[RestoredItem], later: Iterable[str] = ()) -> None:
        self.run = run
        """The run whose state it is."""
        self.items = tuple(items)
        """A `RestoredItem` for each thing that was looked at."""
        self.later = tuple(later)
        """Generators that are put back when the program tracks them under these names."""

    @property
    def is_complete(self) -> bool:
        """Whether everything that was looked at is as it was recorded, or will be."""
        return all(item.is_settled for item in self.items)

    def __str__(self) -> str:
        lines = [f"run {self.run}: {counted(self.items)}"]
        telling = [item for item in self.items if item.outcome != "equal already"]
        lines += [f"  {item}" for item in telling[:_MOST_SHOWN]]
        if len(telling) > _MOST_SHOWN:
            lines.append(f"  and {len(telling) - _MOST_SHOWN} more")
        lines += [f"  {name}: when the program tracks it" for name in self.later[:_MOST_SHOWN]]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<RestoreReport {self.run}: {counted(self.items)}>"


def together(group: str, items: Iterable[RestoredItem]) -> list[RestoredItem]:
    """The items that tell something, and one for all that were equal already."""
    items = list(items)
    telling = [item for item in items if item.outcome != "equal already"]
    equal = len(items) - len(telling)
    return [*telling, *([RestoredItem(group, "equal already", number=equal)] if equal else [])]


class Counted(Protocol):
    """An item, as it is made or as a manifest has it."""

    @property
    def outcome(self) -> str:
        """What came of it."""

    @property
    def number(self) -> int:
        """How many things it stands for."""


def counted(items: Iterable[Counted]) -> str:
    """How many of each outcome, in words."""
    counts: dict[str, int] = {}
    for item in items:
        counts[item.outcome] = counts.get(item.outcome, 0) + item.number
    order = ("restored", "equal already", "pending", "skipped", "failed")
    return ", ".join(f"{counts[each]} {each}" for each in order if each in counts) or "nothing"


def put_back(items: Sequence[Counted]) -> str:
    """What a verdict says was put back: where nothing had to be, that is no failure."""
    number = sum(item.number for item in items)
    if number > 1 and all(item.outcome == "equal already" for item in items):
        return f"nothing, as all {number} were equal already"
    return counted(items)
