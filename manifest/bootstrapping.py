"""How a process is told to record itself, and how it begins.

A launcher puts the variables of `variables_for` into the environment of a program; every Python
process that inherits them begins to record at its start. Nothing heavy happens there: what costs
waits until the program imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from manifest import lineage
from manifest.recorder import Recorder
from manifest.rundir import RunDirectory

RUN_DIR = "MANIFEST_RUN_DIR"
FOLDER = Path(__file__).parent / "bootstrap"


def variables_for(run: RunDirectory, process: str, environ: Mapping[str, str]) -> dict[str, str]:
    """What to add to `environ` so that a program, and its children, record into `run`."""
    inherited = environ.get("PYTHONPATH")
    path = str(FOLDER) if not inherited else os.pathsep.join((str(FOLDER), inherited))
    return {RUN_DIR: str(run.path), lineage.VARIABLE: process, "PYTHONPATH": path}


def begin() -> None:
    """Record this process from its start, into the run that the environment names."""
    run = RunDirectory(Path(os.environ[RUN_DIR]))
    Recorder(run, os.environ.get(lineage.VARIABLE, "main")).start(from_start=True)
