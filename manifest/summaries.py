"""A run in one line, as lists show it."""

from __future__ import annotations

import shlex
from typing import Final

from manifest.canonical import Json
from manifest.models import Manifest, RunSummary, Verdict

LABEL_LENGTHS: Final = {
    "project": 200,
    "name": 200,
    "status": 20,
    "started_at": 40,
    "ended_at": 40,
    "command": 2000,
    "outcome": 20,
    "key": 200,
    "value": 200,
}
"""How many characters a list keeps of each text; the manifest keeps all."""

_LARGEST_INTEGER = 2**63 - 1


def summarize(manifest: Manifest, verdict: Verdict | None = None) -> RunSummary:
    """Say in one line what a run was, and what it showed if it is a replay."""
    texts = {
        "project": manifest.project,
        "name": manifest.name,
        "status": manifest.status,
        "started_at": manifest.started_at,
        "ended_at": manifest.ended_at,
        "command": _command_line(manifest),
        "outcome": verdict.outcome if verdict is not None else None,
    }
    labels = {name: label(text, LABEL_LENGTHS[name]) for name, text in texts.items()}
    return RunSummary.model_validate(
        {**labels, "id": manifest.id, "steps": _steps(manifest), "replay_of": manifest.replay_of}
    )


def label(text: str | None, characters: int) -> str | None:
    """Make text fit for lists and indexes: PostgreSQL refuses NUL, and long text in an index."""
    if text is None:
        return None
    if not text.isascii() or "\0" in text:
        text = text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "␀")
    return text if len(text) <= characters else text[: characters - 1] + "…"


def _command_line(manifest: Manifest) -> str:
    argv = manifest.sections.get("command", {}).get("argv")
    if not isinstance(argv, list):
        return ""
    return " ".join(shlex.quote(_argument(argument)) for argument in argv)


def _argument(argument: Json) -> str:
    if isinstance(argument, str):
        return argument
    is_hidden = isinstance(argument, dict) and "$redacted" in argument
    return "REDACTED" if is_hidden else str(argument)


def _steps(manifest: Manifest) -> int | None:
    counts = [process.trail.steps for process in manifest.processes.values() if process.trail]
    return min(max(counts), _LARGEST_INTEGER) if counts else None
