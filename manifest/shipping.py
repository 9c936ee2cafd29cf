"""Have runs delivered to a service: by a process of its own, which a training only starts.

What trains opens no socket. Where a service is named, it starts a small process, which lives on
after it and delivers its run directory; at its end a program waits, for a bounded time, for the
acknowledgement.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from manifest.delivered import is_delivered
from manifest.inheriting import as_user_made_it
from manifest.recorder import complain
from manifest.rundir import RunDirectory

MODULE: Final = "manifest_client.shipper"
LONGEST_WAIT_SECONDS: Final = 5.0

_KEPT: Final = ("MANIFEST_URL", "MANIFEST_TOKEN", "MANIFEST_MODE")
_LOOKS_EVERY_SECONDS: Final = 0.05

# The shell ends at once and leaves its child to the system: a program that waits for any of its
# children must not meet one that it never started.
_DETACHING: Final = '"$@" </dev/null >/dev/null 2>&1 &'


def start_shipper(base: Path, environ: Mapping[str, str]) -> bool:
    """Start the process that delivers the runs of `base`, unless one is there already.

    Returns:
        Whether it could be started; one that finds another at work ends at once.
    """
    if importlib.util.find_spec(MODULE.partition(".")[0]) is None:
        return False
    kept = {name: environ[name] for name in _KEPT if name in environ}
    command = [sys.executable, "-m", MODULE, str(base)]
    arguments = ["sh", "-c", _DETACHING, "manifest", *command]
    clean = {**as_user_made_it(environ), **kept}
    try:
        try:
            pid = os.posix_spawn("/bin/sh", arguments, clean, setsid=True)
        except NotImplementedError:  # an old C library: it stays in our session
            pid = os.posix_spawn("/bin/sh", arguments, clean)
        os.waitpid(pid, 0)
    except ChildProcessError:  # the program waits for all of its children, and met it first
        return True
    except OSError:
        return False
    return True


def await_delivery(runs: Iterable[RunDirectory], longest_seconds: float) -> None:
    """Wait until these runs are acknowledged; say which are not in time."""
    deadline = time.monotonic() + longest_seconds
    waiting = list(runs)
    while waiting := [run for run in waiting if not _is_delivered(run)]:
        if time.monotonic() >= deadline:
            complain(_undelivered(waiting))
            return
        time.sleep(_LOOKS_EVERY_SECONDS)


def _undelivered(runs: Sequence[RunDirectory]) -> str:
    remedy = "the next run, or now with: manifest sync"
    if len(runs) == 1:
        (run,) = runs
        kept = f"it is kept in {run.path} and goes along with"
        return f"run {run.id} is not delivered yet; {kept} {remedy}"
    kept = f"they are kept in {runs[0].path.parent} and go along with"
    return f"{len(runs)} runs are not delivered yet; {kept} {remedy}"


def longest_wait_seconds(environ: Mapping[str, str]) -> float:
    """How long the end of a program may wait, as MANIFEST_TIMEOUT says."""
    try:
        seconds = float(environ.get("MANIFEST_TIMEOUT", ""))
    except ValueError:
        return LONGEST_WAIT_SECONDS
    return seconds if 0 <= seconds <= 3600 else LONGEST_WAIT_SECONDS


def _is_delivered(run: RunDirectory) -> bool:
    try:
        return is_delivered(run)
    except Exception:  # a run that cannot be read is said to be so by whoever reads it
        return False
