"""How a process begins that was told to record itself.

Imported by `bootstrap/sitecustomize.py` at the start of every Python process that inherits the
variables of `inheriting`. Nothing heavy happens here: what costs waits until the program imports
torch.
"""

from __future__ import annotations

import os
from pathlib import Path

from manifest import lineage
from manifest.inheriting import RUN_DIR
from manifest.recorder import Recorder
from manifest.rundir import RunDirectory


def begin() -> None:
    """Record this process from its start, into the run that the environment names."""
    run = RunDirectory(Path(os.environ[RUN_DIR]))
    Recorder(run, os.environ.get(lineage.VARIABLE, "main")).start(from_start=True)
