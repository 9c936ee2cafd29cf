"""The plan of a replay: what can be put back, what cannot, and what that does to the bits."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from manifest.needs import files, interpreter, machine, program
from manifest.needs.items import Original, PlanItem, Wish, impossible
from manifest.recorded import Recorded
from manifest.rundir import RunDirectory

__all__ = ["Plan", "PlanItem", "Wish", "make_plan"]

_PARTS: Final = (
    program.command,
    program.standard_input,
    program.randomness,
    interpreter.interpreter,
    machine.machine,
    machine.processors,
    machine.limits,
    program.ranks,
    program.variables,
    program.settings,
    files.inputs,
)


class Plan(BaseModel):
    """Everything that a replay needs, and whether it is to be had."""

    model_config = ConfigDict(frozen=True)

    items: tuple[PlanItem, ...]

    @property
    def blocking(self) -> tuple[PlanItem, ...]:
        """What cannot be put back and can change the bits: a strict replay stops at these."""
        return tuple(
            item
            for item in self.items
            if item.state == "impossible" and item.impact in ("certain", "possible")
        )


def make_plan(recorded: Recorded, run: RunDirectory, wish: Wish) -> Plan:
    """Look at what a replay of this run needs, without running anything of the program."""
    items = [*_end(run), *(item for part in _PARTS for item in part(recorded, wish))]
    with tempfile.TemporaryDirectory(
        prefix="manifest-plan-", ignore_cleanup_errors=True
    ) as scratch:
        original = Original(run, Path(scratch) / "repository")
        items.extend(files.source(recorded, wish, original))
    return Plan(items=tuple(items))


def _end(run: RunDirectory) -> Iterator[PlanItem]:
    """A run that still goes on, whose replay would have no end either if it has none."""
    if not run.is_sealed() and run.is_alive():
        why = "the run still goes on; wait for its end, or repeat its steps so far: --best-effort"
        yield impossible("end", why)
