"""One thing that a replay needs, and what is known of the replay when it is looked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from manifest import catalogue
from manifest.changing import Changes
from manifest.models import Impact
from manifest.rundir import RunDirectory

State = Literal["restorable", "equal already", "approximate", "impossible", "changed"]


class PlanItem(BaseModel):
    """One thing that a replay needs."""

    model_config = ConfigDict(frozen=True)

    what: str
    state: State
    why: str
    impact: Impact


@dataclass(frozen=True, slots=True)
class Wish:
    """How a replay is asked for."""

    in_place: bool = False
    is_rebuilt: bool = False
    """Whether the recorded packages are installed anew, for this replay."""
    may_run: bool = True
    """Whether programs that the manifest names may be asked for their version."""
    changes: Changes = field(default_factory=Changes)


@dataclass(frozen=True, slots=True)
class Original:
    """Where the recorded run is kept."""

    run: RunDirectory
    scratch: Path
    """An empty folder, for whoever has to try something out."""


def item(what: str, state: State, why: str, impact: Impact) -> PlanItem:
    """One item."""
    return PlanItem(what=what, state=state, why=why, impact=impact)


def impossible(what: str, why: str) -> PlanItem:
    """An item that stops a replay."""
    return item(what, "impossible", why, "certain")


def impact_of(section: str, key: str) -> Impact:
    """What the catalogue says of a key."""
    setting = catalogue.lookup(section, key)
    return setting.impact if setting is not None else "unknown"


def shortened(value: object, *, most: int = 60) -> str:
    """A value, on part of a line."""
    text = str(value)
    return text if len(text) <= most else text[: most - 3] + "…"
