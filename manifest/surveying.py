"""What takes long to learn about a run, learnt beside the program: its repository, its accelerators.

Runs in the launcher, or in a thread of a program that records itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from manifest.canonical import Json
from manifest.rundir import RunDirectory


class Listener(Protocol):
    """Whoever writes down what is learnt."""

    def section(self, name: str, values: dict[str, Json]) -> None:
        """Record facts of one section."""

    def note(self, where: str, what: object) -> None:
        """Record that something could not be done."""


def survey(listener: Listener, run: RunDirectory, folder: Path) -> None:
    """Learn and record; what fails becomes a note."""
    for where, part in (("code.git", _repository), ("hardware", _accelerators)):
        try:
            part(listener, run, folder)
        except Exception as error:
            listener.note(where, error)


def _repository(listener: Listener, run: RunDirectory, folder: Path) -> None:
    from manifest.environment.source import capture_source

    state = capture_source(folder)
    if state.problem:
        listener.note("code.git", state.problem)


def _accelerators(listener: Listener, run: RunDirectory, folder: Path) -> None:
    from manifest.environment.hardware import capture_accelerators

    listener.section("hardware", capture_accelerators())
