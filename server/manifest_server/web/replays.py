"""How often a run was replayed, and what that showed: its history, its line, its badge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from manifest.models import RunSummary, Section, Verdict
from manifest_server.api.parameters import RunId
from manifest_server.callers import Caller
from manifest_server.dependencies import Store, check_visible
from manifest_server.sqlstore import SqlStore
from manifest_server.web.machines import count_machines, identity, machine
from manifest_server.web.templating import rendered
from manifest_server.web.visitors import Visitor

router = APIRouter(include_in_schema=False)

_MOST: Final = 1000
_COLOURS: Final = {"good": "#1a7035", "bad": "#b3261e", "quiet": "#63625c"}
_LETTER_WIDTH: Final = 6.0  # of a letter of the badge, on average; its text is stretched to fit


@dataclass(frozen=True, slots=True)
class Replay:
    """One replay of a run."""

    run: RunSummary
    verdict: Verdict | None
    machine: str

    @property
    def is_plain(self) -> bool:
        """Whether it repeated the run as it was; one that changed something on purpose did not."""
        return self.verdict is None or not self.verdict.changed


@dataclass(frozen=True, slots=True)
class History:
    """The replays of a run, the newest first."""

    replays: Sequence[Replay]
    machines: int
    """On how many machines it was repeated, at least."""
    by_machine: Sequence[tuple[str, Sequence[tuple[str, int]]]] = ()
    """How often each verdict was given on each machine."""

    @property
    def outcomes(self) -> Counter[str]:
        """How often each verdict was given on what changed nothing."""
        return Counter(
            each.run.outcome for each in self.replays if each.run.outcome and each.is_plain
        )

    @property
    def tone(self) -> str:
        """Whether this is good or bad."""
        if self.outcomes["diverged"]:
            return "bad"
        return "good" if self.outcomes["identical"] else "quiet"

    @property
    def line(self) -> str:
        """All of it in one line; nothing where there was no verdict yet."""
        identical, diverged = self.outcomes["identical"], self.outcomes["diverged"]
        parts = []
        if identical:
            on = f" on {self.machines} machines" if self.machines > 1 else ""
            parts.append(f"replayed bit for bit {_times(identical)}{on}")
        if close := self.outcomes["within tolerance"]:
            parts.append(f"within tolerance {_times(close)}")
        if diverged:
            parts.append(f"diverged {_times(diverged)}")
        if failed := self.outcomes["not replayable"]:
            parts.append(f"could not be replayed {_times(failed)}")
        if not parts and not all(each.is_plain for each in self.replays):
            return "replayed only with something changed on purpose"
        return "; ".join(parts)

    @property
    def badge(self) -> str:
        """The words of the badge."""
        if self.outcomes["diverged"]:
            return "diverged"
        if not (count := self.outcomes["identical"]):
            return "not replayed yet"
        on = f" on {self.machines} machines" if self.machines > 1 else ""
        return f"replayed bit for bit {count}×{on}"


def history(store: SqlStore, visitor: Caller, run_id: str) -> History:
    """The replays of a run that the visitor may know of."""
    found = [
        run for run in store.list_replays(run_id)[:_MOST] if visitor.project in (None, run.project)
    ]
    ids = [run.id for run in found]
    verdicts, hardware = store.get_verdicts(ids), store.get_hardware(ids)
    replays = [
        Replay(run, verdicts.get(run.id), machine(hardware.get(run.id, {}))) for run in found
    ]
    equal = [
        hardware.get(each.run.id, {})
        for each in replays
        if each.is_plain and each.run.outcome == "identical"
    ]
    return History(replays, count_machines(equal), _by_machine(replays, hardware))


def _by_machine(
    replays: Sequence[Replay], hardware: Mapping[str, Section]
) -> list[tuple[str, list[tuple[str, int]]]]:
    """The machine with most verdicts first; machines that are alike look like one."""
    names: dict[tuple[str, ...], str] = {}
    counts: dict[tuple[str, ...], Counter[str]] = {}
    for each in replays:
        if each.is_plain and each.run.outcome:
            key = identity(hardware.get(each.run.id, {}))
            names.setdefault(key, each.machine or "a machine that was not recorded")
            counts.setdefault(key, Counter())[each.run.outcome] += 1
    ordered = sorted(counts, key=lambda key: -counts[key].total())
    return [(names[key], counts[key].most_common()) for key in ordered]


@router.get("/runs/{run_id}/badge.svg")
def get_badge(request: Request, run_id: RunId, store: Store, visitor: Visitor) -> Response:
    """A picture of a line, to be shown in the description of a project."""
    check_visible(store, visitor, run_id)
    found = history(store, visitor, run_id)
    width = round(len(found.badge) * _LETTER_WIDTH)
    picture = rendered(
        request, "badge.svg", words=found.badge, colour=_COLOURS[found.tone], width=width
    )
    headers = {
        "Cache-Control": "max-age=60",
        "Vary": "Cookie",
        # Other sites show it; where tokens are asked for, their visitors send none along.
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    return Response(picture, media_type="image/svg+xml", headers=headers)


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
