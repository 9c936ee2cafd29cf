"""What takes long to learn about a run, learnt beside the program.

Runs in the launcher, or in a thread of a program that records itself.
"""

from __future__ import annotations

import ctypes  # noqa: F401 -- for asking drivers: not imported there, amid a fork of the program
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from manifest.canonical import ABSENT, Json
from manifest.environment.confidential import is_confidential
from manifest.environment.hardware import capture_accelerators
from manifest.environment.redaction import redact_text
from manifest.environment.source import SourceState, capture_source
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
    found = {f"git.{key}": value for key, value in _described(state, run).items()}
    submodules = dict(_submodules(state, run))
    listener.section("code", found | ({"git.submodules": submodules} if submodules else {}))


def _described(state: SourceState, run: RunDirectory) -> dict[str, Json]:
    values: dict[str, Json] = {
        "commit": state.commit,
        "branch": state.branch,
        "remote": state.remote,
        "dirty": state.is_dirty,
        "tree": state.tree,
    }
    if state.patch:
        values["patch"] = run.put_blob(state.patch)
    if state.untracked:
        values["untracked"] = {
            name: run.put_blob(file.content)
            for file in state.untracked
            if _is_shown(name := os.fsdecode(file.path), file.content)
        }
    return values


def _submodules(
    state: SourceState, run: RunDirectory, within: str = ""
) -> Iterator[tuple[str, Json]]:
    for submodule in state.submodules:
        if submodule.state is not None and submodule.state.commit is not None:
            path = within + os.fsdecode(submodule.path)
            unchanged = {"patch": ABSENT, "untracked": ABSENT}
            yield path, unchanged | _described(submodule.state, run)
            yield from _submodules(submodule.state, run, path + "/")


def _is_shown(name: str, content: bytes) -> bool:
    return redact_text(name) == name and not is_confidential(name, content)
