"""The launch that a rank belongs to: what its ranks share, and what started them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from manifest.canonical import digest_value
from manifest.environment.launcher import capture_launcher, told_number, told_rank
from manifest.liveness import identify_process

_TORCHRUN: Final = "TORCHELASTIC_RUN_ID"
# Of each launcher: what all ranks of one launch share, and what each has for itself. Both tell a
# rank, and a shell that it may have been wrapped in, from what started it.
_SHARED: Final = (
    (_TORCHRUN, "RANK", ("TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT")),
    ("SLURM_STEP_ID", "SLURM_PROCID", ("SLURM_JOB_ID",)),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", ()),
    ("PMI_SIZE", "PMI_RANK", ()),
    ("WORLD_SIZE", "RANK", ("MASTER_ADDR", "MASTER_PORT")),
)
_RANKS_HERE: Final = ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")
_MOST_ANCESTORS: Final = 16


@dataclass(frozen=True, slots=True)
class Launch:
    """One start of several ranks on this machine, as one of them sees it."""

    key: str
    """The same in each of the ranks, and in those of no other launch."""
    rank: int
    world_size: int
    nodes: int
    ranks_here: int | None
    """How many of the ranks are on this machine, if that is told."""
    may_recur: bool
    """Whether one shell may start several launches of the same key, one after the other."""
    command: list[str] | None = None
    """What started all of the ranks, where it can be started again."""
    folder: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    """What the launcher itself was given, as far as it can be read."""


def find_launch(environ: Mapping[str, str]) -> Launch | None:
    """Find what started this process as one of several ranks; None if it is none."""
    rank, facts = told_rank(environ), capture_launcher(environ)
    size = facts.get("launcher.world_size")
    if rank is None or not isinstance(size, int) or size < 2:
        return None
    found = (names for names in _SHARED if names[0] in environ and names[1] in environ)
    all_share, one_has, more = next(found, _SHARED[-1])
    pid, told = _starter({name: environ.get(name) for name in (all_share, one_has)})
    shared = [[name, environ.get(name)] for name in (all_share, *more)]
    key = digest_value([shared, identify_process(pid)]).removeprefix("sha256:")[:32]
    nodes = facts.get("launcher.nodes")
    nodes = nodes if isinstance(nodes, int) else 1
    here = next((n for name in _RANKS_HERE if (n := told_number(environ, name)) is not None), None)
    return Launch(
        key=key,
        rank=rank,
        world_size=size,
        nodes=nodes,
        ranks_here=size if here is None and nodes == 1 else here,
        may_recur=all_share != _TORCHRUN,
        # Others leave no command of their own: a daemon of the cluster starts their ranks.
        command=_command(pid, told) if all_share == _TORCHRUN else None,
        folder=_folder(pid),
        environ=told,
    )


def _starter(marks: Mapping[str, str | None]) -> tuple[int, dict[str, str]]:
    """The nearest ancestor that was not started as this rank, and its environment."""
    pid = os.getppid()
    for _ in range(_MOST_ANCESTORS):
        environ = _environ(pid)
        above = _parent(pid)
        if above < 1 or any(environ.get(name) != value for name, value in marks.items()):
            break
        pid = above
    return pid, environ


def _environ(pid: int) -> dict[str, str]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            items = [item.partition("=") for item in os.fsdecode(file.read()).split("\0")]
    except OSError:  # another user's: a daemon that starts ranks for everyone
        return {}
    return {name: value for name, equals, value in items if equals}


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def _command(pid: int, environ: Mapping[str, str]) -> list[str] | None:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            program, *arguments = os.fsdecode(file.read()).removesuffix("\0").split("\0")
    except OSError:
        return None
    found = shutil.which(program, path=environ.get("PATH"))
    return None if found is None else [os.path.abspath(found), *arguments]


def _folder(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return None
