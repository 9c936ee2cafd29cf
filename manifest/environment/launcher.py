"""Who started the ranks of a distributed run, and which of them this process is."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final

from manifest.canonical import Json

# Rank, number of ranks, number of machines: as each launcher tells its processes.
_TOLD: Final = (
    ("torchrun", "RANK", "WORLD_SIZE", "GROUP_WORLD_SIZE"),
    ("slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES"),
    ("mpi", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_MCA_orte_num_nodes"),
    ("mpi", "PMI_RANK", "PMI_SIZE", ""),
)
TELLING: Final = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)
"""Variables by which a launcher tells a process its place; also given by hand."""


def capture_launcher(environ: Mapping[str, str]) -> dict[str, Json]:
    """Read who started this rank, how many there are, and on how many machines.

    Returns:
        ``launcher.name``, ``launcher.world_size``, ``launcher.nodes`` and ``launcher.restarts``, as
        far as they are told; nothing in a process that is no rank.
    """
    for name, rank, size, nodes in _TOLD:
        if told_number(environ, rank) is None or told_number(environ, size) is None:
            continue
        told = {
            "launcher.name": _launcher(environ) if rank == "RANK" else name,
            "launcher.world_size": told_number(environ, size),
            "launcher.nodes": told_number(environ, nodes),
            "launcher.restarts": told_number(environ, "TORCHELASTIC_RESTART_COUNT"),
        }
        return {key: value for key, value in told.items() if value is not None}
    return {}


def capture_given(environ: Mapping[str, str]) -> dict[str, Json]:
    """Read the place that the program itself was given, before any launcher in it gives another.

    Returns:
        ``given.NAME`` for each that is set.
    """
    return {f"given.{name}": environ[name][:256] for name in TELLING if name in environ}


def as_given(recorded: Mapping[str, Json]) -> dict[str, Json]:
    """Put the place that the program was given over the one that its launcher gave a rank.

    Args:
        recorded: The ``environment`` section of a rank.

    Returns:
        The same, as it was where the program was started.
    """
    told = {f"env.{name}" for name in TELLING}
    found = {key: value for key, value in recorded.items() if key not in told}
    for name in TELLING:
        if f"given.{name}" in recorded:
            found[f"env.{name}"] = recorded[f"given.{name}"]
    return found


def told_rank(environ: Mapping[str, str]) -> int | None:
    """The rank that this process was told; the helpers of a rank inherit it."""
    ranks = (
        told_number(environ, rank)
        for _, rank, size, _ in _TOLD
        if told_number(environ, size) is not None
    )
    return next((rank for rank in ranks if rank is not None), None)


def joined_rank() -> int | None:
    """The rank in the process group of PyTorch that this process has joined, if it has."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return int(distributed.get_rank())


def _launcher(environ: Mapping[str, str]) -> str:
    if "ACCELERATE_MIXED_PRECISION" in environ:
        return "accelerate"
    return "torchrun" if "TORCHELASTIC_RUN_ID" in environ else "other"


def told_number(environ: Mapping[str, str], name: str) -> int | None:
    """A small number that a variable was set to, if it was."""
    text = environ.get(name, "")
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 10 else None
