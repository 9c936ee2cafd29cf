"""The ranks of a run: their names, their trails, and what one has otherwise than the first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from manifest.canonical import Json
from manifest.diffing import diff_sections
from manifest.models import Difference, Manifest, Process
from manifest.rundir import RunDirectory
from manifest.trail import Trail

# What each process recorded for itself; the rest of the first one holds what all did.
_COMPARED: Final = (
    "config",
    "environment",
    "generators",
    "hardware",
    "loaders",
    "packages",
    "settings",
)
_TELLING_APART: Final = frozenset(
    {
        "env.GROUP_RANK",
        "env.LOCAL_RANK",
        "env.RANK",
        "env.SLURM_GTIDS",
        "env.SLURM_LOCALID",
        "env.SLURM_NODEID",
        "env.SLURM_PROCID",
        "env.SLURM_TASK_PID",
        "env.TORCHELASTIC_ERROR_FILE",
    }
)
"""What differs because it says which rank this is."""


def names(manifest: Manifest) -> dict[str, str]:
    """The name of each rank, such as ``rank 1``, by process; in the order of ranks.

    A rank that was started again after a failure is ``rank 1~1``.
    """
    found: dict[str, str] = {}
    for process, facts in sorted(manifest.processes.items(), key=_order):
        if facts.rank is None:
            continue
        name = f"rank {facts.rank}"
        again = sum(known.partition("~")[0] == name for known in found.values())
        found[process] = f"{name}~{again}" if again else name
    return found


def trails(run: RunDirectory, manifest: Manifest) -> dict[str, Trail]:
    """The trails of a run: by rank if it has ranks, else by process.

    What started the ranks, and their helpers, train nothing and are left out then.
    """
    found = {process: Trail.open(path) for process, path in run.trail_paths().items()}
    ranks = names(manifest)
    if not ranks:
        return found
    return {
        ranks.get(process, process): trail
        for process, trail in found.items()
        if process in ranks or trail.steps
    }


def differences(manifest: Manifest) -> dict[str, tuple[Difference, ...]]:
    """What each rank recorded otherwise than the first, by name; empty where they agree."""
    ranks = names(manifest)
    if len(ranks) < 2:
        return {}
    first, *others = ranks
    before = _recorded(manifest, first)
    return {
        ranks[process]: diff_sections(before, _recorded(manifest, process)) for process in others
    }


def _recorded(manifest: Manifest, process: str) -> dict[str, dict[str, Json]]:
    # The sections of the first process that trained are the run's own.
    sections: Mapping[str, Mapping[str, Json]] = (
        manifest.processes[process].sections or manifest.sections
    )
    found = {
        name: {
            key: value
            for key, value in sections.get(name, {}).items()
            if key not in _TELLING_APART and not key.startswith("given.")
        }
        for name in _COMPARED
    }
    # Accelerators are asked for once a run: a run is of one machine.
    hardware = manifest.sections.get("hardware", {})
    found["hardware"] |= {key: hardware[key] for key in hardware if key.startswith("gpu.")}
    return found


def _order(item: tuple[str, Process]) -> tuple[int, str, str]:
    process, facts = item
    return (facts.rank or 0, facts.started_at or "", process)
