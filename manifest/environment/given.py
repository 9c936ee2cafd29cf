"""What a program is given by whoever starts it: standard input, processors, limits.

Read before the program runs, since a library may bind the program's threads to processors of its
own later.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from manifest.canonical import Json
from manifest.environment.confidential import is_confidential
from manifest.environment.redaction import redact_text

STDIN: Final = "given.stdin"
AFFINITY: Final = "given.affinity"
UMASK: Final = "given.umask"

_MOST_KEPT_BYTES: Final = 1 << 20
_MOST_PROCESSORS: Final = 1 << 16
_SPAN: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
"""Standard input that a program seldom reads, and that a replay can give as it was."""

Keep = Callable[[bytes], str]


def capture_given(keep: Keep) -> dict[str, Json]:
    """Read what this process would hand to a program that it starts now, or was handed itself.

    Args:
        keep: Stores bytes and gives their digest; asked for a small file on standard input.
    """
    return {
        STDIN: _standard_input(keep),
        AFFINITY: ranges(os.sched_getaffinity(os.getpid())),
        UMASK: umask(),
        "given.open_files": open_files(),
    }


def umask() -> str:
    """The mask of file modes, in octal digits."""
    # os.umask() can only be read by setting it, for all threads.
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return next((line.split()[1] for line in file if line.startswith("Umask:")), "0022")


def open_files() -> int:
    """How many files the process may have open."""
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def ranges(numbers: Iterable[int]) -> str:
    """Write processors as the system does, such as ``0-3,8``."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def processors(recorded: Mapping[str, Json]) -> frozenset[int]:
    """The processors that a recorded program was given; none where that is not known."""
    text = recorded.get(AFFINITY)
    found: set[int] = set()
    for part in text.split(",") if isinstance(text, str) else ():
        span = _SPAN.fullmatch(part)
        if span is None or int(span[1]) > int(span[2] or span[1]):
            return frozenset()
        found.update(range(int(span[1]), min(int(span[2] or span[1]), _MOST_PROCESSORS) + 1))
    return frozenset(found)


def available_processors() -> frozenset[int]:
    """The processors that the system would give to a process of this user."""
    mine = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        return frozenset(os.sched_getaffinity(0))
    except OSError:
        return frozenset(mine)
    finally:
        os.sched_setaffinity(0, mine)


def fitting_processors(recorded: Mapping[str, Json]) -> frozenset[int]:
    """Processors for a replay: those that were given, else as many others; none if too few."""
    wanted, there = processors(recorded), available_processors()
    if wanted <= there:
        return wanted
    return frozenset(sorted(there)[: len(wanted)]) if len(wanted) <= len(there) else frozenset()


def mask(recorded: Mapping[str, Json]) -> int | None:
    """The recorded mask of file modes."""
    text = recorded.get(UMASK)
    return int(text, 8) if isinstance(text, str) and re.fullmatch("[0-7]{1,4}", text) else None


def _standard_input(keep: Keep) -> dict[str, Json]:
    try:
        status = os.fstat(0)
    except OSError:
        return {"kind": "nothing"}
    if stat.S_ISREG(status.st_mode):
        return _file(status, keep)
    if stat.S_ISCHR(status.st_mode):
        return {"kind": "terminal" if os.isatty(0) else "nothing"}
    if stat.S_ISFIFO(status.st_mode):
        return {"kind": "nothing" if _is_closed_and_empty() else "pipe"}
    return {"kind": "socket" if stat.S_ISSOCK(status.st_mode) else "other"}


def _file(status: os.stat_result, keep: Keep) -> dict[str, Json]:
    path, offset = os.readlink("/proc/self/fd/0"), os.lseek(0, 0, os.SEEK_CUR)
    facts: dict[str, Json] = {
        "kind": "file",
        "path": redact_text(path),
        "offset": offset,
        "size": status.st_size,
        "mtime_us": status.st_mtime_ns // 1000,
    }
    if status.st_size <= _MOST_KEPT_BYTES:
        content = os.pread(0, _MOST_KEPT_BYTES, 0)
        if not is_confidential(path, content):
            facts["blob"] = keep(content)
    return facts


def _is_closed_and_empty() -> bool:
    import select

    poll = select.poll()
    poll.register(0, select.POLLIN)
    events = [event for _, event in poll.poll(0)]
    return any(event & select.POLLHUP and not event & select.POLLIN for event in events)
