"""Where ranks meet that record themselves: the first makes the run, the others join it.

Nobody waits for anybody. A run is made whole and then linked, under what all ranks of a launch
share; a link can be made once only.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeGuard

from manifest.environment.launches import Launch
from manifest.identity import is_run_id
from manifest.journal import Entry
from manifest.liveness import is_running
from manifest.rundir import RunDirectory

_FOLDER: Final = "launches"
_MOST_RUNS: Final = 10_000
_RANK: Final = re.compile(r"rank\d+")

_visits = 0


def process_name(launch: Launch) -> str:
    """The name of a rank among the processes of its run."""
    return f"rank{launch.rank}"


def find(base: Path, launch: Launch) -> RunDirectory | None:
    """Find the run that another rank of this launch has made; None if this is the first.

    A program may record several runs, one after the other: the ranks meet for each anew, the first
    time for the first, the second for the second.

    Args:
        base: The folder that keeps runs.
        launch: What this process is a rank of.
    """
    for visit, link in _links(base, launch):
        if not os.path.lexists(link):
            break
        run = _target(link)
        if _is_open_to(launch, run):
            _has_met(visit)
            return run
    return None


def offer(base: Path, launch: Launch, made: RunDirectory) -> bool:
    """Let the other ranks of this launch join a run, whole as it is.

    Returns:
        Whether it stands; else another rank was faster, and `made` is gone.
    """
    for visit, link in _links(base, launch):
        try:
            link.parent.mkdir(exist_ok=True)
            os.symlink(os.path.join("..", "runs", made.id), link)
            _has_met(visit)
            return True
        except FileExistsError:
            if _is_open_to(launch, _target(link)):
                shutil.rmtree(made.path, ignore_errors=True)
                return False
        except OSError:  # no links on this disk: every rank keeps a run of its own
            break
    return True


def is_over(run: RunDirectory, launch: Launch) -> bool:
    """Whether all ranks of this machine have come, and none of them still records."""
    ranks = [entries for name, entries in run.journals().items() if _RANK.fullmatch(name)]
    has_all = launch.ranks_here is not None and len(ranks) >= launch.ranks_here
    return has_all and all(_has_ended(entries) for entries in ranks)


def forget_sealed(base: Path) -> None:
    """Take away the links to runs that are over: nobody joins them any more."""
    with suppress(OSError):
        for link in (base / _FOLDER).iterdir():
            run = _target(link)
            if run is None or run.is_sealed() or not run.path.exists():
                link.unlink(missing_ok=True)


def _links(base: Path, launch: Launch) -> Iterator[tuple[int, Path]]:
    for visit in range(_visits, _visits + _MOST_RUNS):
        yield visit, base / _FOLDER / f"{launch.key}.{visit}"


def _has_met(visit: int) -> None:
    global _visits
    _visits = visit + 1


def _is_open_to(launch: Launch, run: RunDirectory | None) -> TypeGuard[RunDirectory]:
    if run is None or run.is_sealed() or not run.has("run") or run.has(process_name(launch)):
        return False  # the last: of an earlier launch by the same shell, or a helper of this rank
    return not launch.may_recur or run.is_alive()


def _target(link: Path) -> RunDirectory | None:
    try:
        name = os.path.basename(os.readlink(link))
    except OSError:
        return None
    return RunDirectory(link.parent.parent / "runs" / name) if is_run_id(name) else None


def _has_ended(entries: list[Entry]) -> bool:
    return any(entry["kind"] == "end" for entry in entries) or not any(
        entry["kind"] == "process" and is_running(entry) for entry in entries
    )
