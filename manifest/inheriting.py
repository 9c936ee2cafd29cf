"""What a program inherits, in its environment, so that it records itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from manifest import lineage
from manifest.rundir import RunDirectory

RUN_DIR = "MANIFEST_RUN_DIR"
CALLBACKS = "MANIFEST_CALLBACKS"
"""``off`` keeps frameworks from being given callbacks: what the user says of their own program."""
FOLDER = str(Path(__file__).parent / "bootstrap")


def variables_for(run: RunDirectory, process: str, environ: Mapping[str, str]) -> dict[str, str]:
    """What to add to `environ` so that a program, and its children, record into `run`."""
    inherited = environ.get("PYTHONPATH")
    path = FOLDER if not inherited else os.pathsep.join((FOLDER, inherited))
    return {RUN_DIR: str(run.path), lineage.VARIABLE: process, "PYTHONPATH": path}


def as_user_made_it(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what was added to it here."""
    found = {
        name: value
        for name, value in environ.items()
        if not name.startswith("MANIFEST_") or name == CALLBACKS
    }
    path = [p for p in found.pop("PYTHONPATH", "").split(os.pathsep) if p and p != FOLDER]
    if path:
        found["PYTHONPATH"] = os.pathsep.join(path)
    return found
