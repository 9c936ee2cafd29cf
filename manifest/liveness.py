"""Whether the process that wrote an entry still runs.

A process id alone is not enough: ids are given again. On Linux the start time (in clock ticks since
boot) and the boot make it unique.
"""

from __future__ import annotations

import functools
import os
import time
from typing import Any

_SILENT_ELSEWHERE_SECONDS = 7 * 24 * 3600


def identify_process(pid: int | None = None) -> dict[str, Any]:
    """What an entry carries so that `is_running` can answer later; by default of this process."""
    pid = os.getpid() if pid is None else pid
    return {
        "pid": pid,
        "started_ticks": _start_ticks(pid),
        "boot": _boot(),
        "host": os.uname().nodename,
    }


def is_running(entry: dict[str, Any]) -> bool:
    """Whether the process that wrote this entry is alive.

    Of a process on another machine only its age is known: it counts as alive for a week.
    """
    if entry.get("boot") != _boot():
        is_here = entry.get("host") == os.uname().nodename
        age_seconds = time.time() - entry.get("at", 0) / 1e6
        return not is_here and age_seconds < _SILENT_ELSEWHERE_SECONDS
    pid = entry.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    if entry.get("started_ticks") is not None:
        return bool(_start_ticks(pid) == entry["started_ticks"])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _start_ticks(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    # A zombie has ended; only its parent has not asked yet.
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


@functools.cache
def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return file.read().strip().decode()
    except OSError:
        return ""
