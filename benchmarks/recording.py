"""What recording costs a program that trains, side by side with peers: `--help` tells the options.

Each measurement is a process of its own; the tools take turns, A B C A B C, so that a slow minute
of the machine hits all of them. The peers are installed here, once, pinned, each into a throw-away
environment; they share the project's torch. While it measures nothing reaches a network.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

PEERS = Path(__file__).parent / "peers"
CACHE = Path.home() / ".cache" / "manifest-benchmarks"
PROCESS_TIMEOUT_SECONDS = 120
# An address of this machine at which nobody listens.
NOWHERE = "http://127.0.0.1:9"
OTHER_TOOLS_VARIABLES = ("PYTHON", "MANIFEST_", "MLFLOW_", "WANDB_", "SACRED_", "GIT_", "VIRTUAL_")

Measured = dict[str, Any]


@dataclass(frozen=True)
class Tool:
    """A way to record the training in `peers/train.py`."""

    name: str
    adapter: str
    package: str | None = None
    """What `requirements-….txt` installs; None runs in the environment of this project."""
    variables: Mapping[str, str] = field(default_factory=dict)
    is_launched: bool = False


IN_STORE = {"MANIFEST_DIR": "{store}"}
MLFLOW_TELEMETRY = {"MLFLOW_DISABLE_TELEMETRY": "true"}
NOTHING = Tool("nothing", "nothing")
OURS = Tool("manifest.record()", "ours", variables=IN_STORE)
LAUNCHED = Tool("manifest run", "nothing", variables=IN_STORE, is_launched=True)
TOOLS = (
    NOTHING,
    OURS,
    LAUNCHED,
    Tool("Sacred, files", "to_sacred", "sacred"),
    Tool("W&B, offline", "to_wandb", "wandb", {"WANDB_ERROR_REPORTING": "false"}),
    Tool(
        "MLflow, files",
        "to_mlflow",
        "mlflow",
        {
            **MLFLOW_TELEMETRY,
            "MLFLOW_TRACKING_URI": "file://{store}/mlruns",
            "MLFLOW_ALLOW_FILE_STORE": "true",
        },
    ),
    Tool(
        "MLflow, SQLite",
        "to_mlflow",
        "mlflow",
        {**MLFLOW_TELEMETRY, "MLFLOW_TRACKING_URI": "sqlite:///{store}/mlflow.db"},
    ),
)


@dataclass(frozen=True)
class Figure:
    """One thing that is measured, and how it is read from what a process measured.

    The baseline is the same of `nothing`; what costs before or after the program's own lines is
    the difference to it.
    """

    title: str
    of: Callable[[Measured], float]
    of_launched: Callable[[Measured, Measured], float] | None
    cpu: Callable[[Measured], float] | None = None
    goal: str = ""
    is_difference: bool = False


FIGURES = (
    Figure(
        "import, torch already there (ms)",
        lambda m: m["import"]["ms"],
        of_launched=None,
        cpu=lambda m: m["import"]["cpu_ms"],
        goal="≤ 100 ms",
    ),
    Figure(
        "start of a run (ms)",
        lambda m: m["start"]["ms"],
        of_launched=lambda m, nothing: m["launch_ms"] - nothing["launch_ms"],
        cpu=lambda m: m["start"]["cpu_ms"],
        goal="≤ 10 ms",
    ),
    Figure(
        "a training step (µs)",
        lambda m: m["with"]["p50_us"] - m["without"]["p50_us"],
        of_launched=lambda m, nothing: m["with"]["p50_us"] - nothing["with"]["p50_us"],
        cpu=lambda m: m["with"]["cpu_us"] - m["without"]["cpu_us"],
        goal="≤ 50 µs",
    ),
    Figure(
        "end of a run (ms)",
        lambda m: m["end"]["ms"],
        of_launched=lambda m, nothing: m["exit_ms"] - nothing["exit_ms"],
        cpu=lambda m: m["end"]["cpu_ms"],
    ),
    Figure("on disk, a run (KB)", lambda m: m["bytes"] / 1e3, lambda m, nothing: m["bytes"] / 1e3),
)
