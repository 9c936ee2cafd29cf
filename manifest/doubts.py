"""What makes a run hard to repeat, wherever that is tried, and what mends it: from its manifest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, get_args

from manifest import recorded
from manifest.errors import NotReplayable
from manifest.lints import RANDOMNESS, lints
from manifest.models import Doubt, Manifest, Reach, Verdict
from manifest.needs import program
from manifest.needs.items import Wish
from manifest.unrepeated import unordered

# The parts of a plan that look at nothing but the manifest.
_PARTS: Final = (program.command, program.randomness, program.ranks)

_FIXES: Final = {
    "hash seed": "start with `PYTHONHASHSEED=0`",
    "os entropy": "take the number from a seeded generator",
}
"""What mends an item of a plan, where its own words do not say so."""

_ORDER: Final = {state: number for number, state in enumerate(get_args(Reach))}


def doubts(manifest: Manifest, verdict: Verdict | None = None) -> list[Doubt]:
    """What makes a run hard to repeat: what stops a replay first, then what is sure to part runs.

    Args:
        manifest: The run.
        verdict: Of its replay, which shows which seeds come out otherwise each time.
    """
    found = [*_of_plan(manifest), *lints(manifest), *(_seeds(verdict, manifest) if verdict else ())]
    return sorted(found, key=_gravity)


def _gravity(doubt: Doubt) -> tuple[bool, bool, int]:
    return doubt.state != "impossible", doubt.impact != "certain", _ORDER[doubt.state]


def _of_plan(manifest: Manifest) -> Iterator[Doubt]:
    try:
        run = recorded.read(manifest)
    except NotReplayable as error:
        for reason in error.reasons:
            yield Doubt(what="manifest", state="impossible", why=reason, impact="certain")
        return
    for part in _PARTS:
        for each in part(run, Wish()):
            if each.state in ("impossible", "approximate"):
                fix = _FIXES.get(each.what, "")
                yield Doubt.model_validate({**each.model_dump(), "fix": fix})
    for found in unordered(manifest):
        yield Doubt(
            what=found.what,
            state="approximate",
            why=found.why,
            impact="possible",
            fix=found.cure,
            source=RANDOMNESS,
        )


def _seeds(verdict: Verdict, manifest: Manifest) -> Iterator[Doubt]:
    calls = manifest.sections.get("seeds", {}).get("calls")
    known = calls if isinstance(calls, dict) else {}
    for each in verdict.restores:
        if each.outcome == "restored" and each.what in known:
            place = each.what.rpartition(" ")[0]
            yield Doubt(
                what="seed",
                state="given again",
                why="it comes out otherwise each time, as from the clock or a process id: "
                f"{each.reason}",
                impact="certain",
                place=place,
                fix="seed with a constant, or with an argument",
            )
