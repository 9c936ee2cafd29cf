"""What makes a run hard to repeat, wherever that is tried: known from its manifest alone."""

from __future__ import annotations

from collections.abc import Iterator

from manifest import recorded
from manifest.errors import NotReplayable
from manifest.models import Manifest
from manifest.needs import program
from manifest.needs.items import PlanItem, Wish, impossible, item
from manifest.unrepeated import unordered

# The parts of a plan that look at nothing but the manifest.
_PARTS = (program.command, program.randomness, program.ranks)


def doubts(manifest: Manifest) -> list[PlanItem]:
    """What cannot be put back, or not quite, on any machine; what stops a replay comes first."""
    return sorted(_doubts(manifest), key=lambda each: each.state != "impossible")


def _doubts(manifest: Manifest) -> Iterator[PlanItem]:
    try:
        run = recorded.read(manifest)
    except NotReplayable as error:
        yield from (impossible("manifest", reason) for reason in error.reasons)
        return
    for part in _PARTS:
        for each in part(run, Wish()):
            if each.state in ("impossible", "approximate"):
                yield each
    for sentence in unordered(manifest):
        yield item("order", "approximate", sentence, "possible")
