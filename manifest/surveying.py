"""What takes long to learn about a run, learnt beside the program.

Runs in the launcher, or in a thread of a program that records itself.
"""

from __future__ import annotations

import ctypes  # noqa: F401 -- for asking drivers: not imported there, amid a fork of the program
import os
from pathlib import Path
from typing import Protocol

from manifest.canonical import Json
from manifest.environment.confidential import is_confidential
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
    values: dict[str, Json] = {
        "git.commit": state.commit,
        "git.branch": state.branch,
        "git.remote": state.remote,
        "git.dirty": state.is_dirty,
        "git.tree": state.tree,
    }
    if state.patch:
        values["git.patch"] = run.put_blob(state.patch)
    if state.untracked:
        values["git.untracked"] = {
            name: run.put_blob(file.content)
            for file in state.untracked
            if _is_shown(name := os.fsdecode(file.path), file.content)
        }
    listener.section("code", values)


def _is_shown(name: str, content: bytes) -> bool:
    return redact_text(name) == name and not is_confidential(name, content)
