"""What takes long to learn about a run, learnt beside the program.

Runs in the launcher, or in a thread of a program that records itself.
"""

from __future__ import annotations

import ctypes  # noqa: F401 -- for asking drivers: not imported there, amid a fork of the program
from pathlib import Path
from typing import Protocol

from manifest import sources
from manifest.canonical import Json
from manifest.environment.hardware import capture_accelerators
from manifest.environment.redaction import redact_text
from manifest.environment.source import capture_source
from manifest.files import project_root
from manifest.rundir import RunDirectory


class Listener(Protocol):
    """Whoever writes down what is learnt."""

    def section(self, name: str, values: dict[str, Json]) -> None:
        """Record facts of one section."""

    def note(self, where: str, what: object) -> None:
        """Record that something could not be done."""


def survey(listener: Listener, run: RunDirectory, folder: Path) -> None:
    """Learn and record; what fails becomes a note."""
    try:
        _survey_repository(listener, run, folder)
    except Exception as error:
        listener.note("code.git", redact_text(str(error)))
    try:
        listener.section("hardware", capture_accelerators())
    except Exception as error:
        listener.note("hardware", error)


def _survey_repository(listener: Listener, run: RunDirectory, folder: Path) -> None:
    if not (project_root(folder) / ".git").exists():
        return
    state = capture_source(folder)
    for gap in state.gaps:
        listener.note("code.git", redact_text(str(gap)))
    if state.commit is None:
        return
    listener.section("code", sources.as_facts(state, run))
