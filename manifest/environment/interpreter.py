"""The interpreter and what the system gave its process."""

from __future__ import annotations

import _locale
import os
import sys
import time
from collections.abc import Callable, Iterable

from manifest.canonical import ABSENT, Json, attempted


def capture_interpreter() -> dict[str, Json]:
    """Read the interpreter as it runs; each value on its own, a failure in its place."""
    return {key: attempted(probe) for key, probe in _PROBES.items()}


def _flags() -> dict[str, object]:
    names = (name for name in dir(sys.flags) if not name.startswith(("_", "n_")))
    return {name: getattr(sys.flags, name) for name in names if name not in ("count", "index")}


def _has_gil() -> bool:
    ask = getattr(sys, "_is_gil_enabled", None)
    return True if ask is None else bool(ask())


def _locale_in_effect() -> str:
    return _locale.setlocale(_locale.LC_ALL, None)


def _umask() -> object:
    # os.umask() can only be read by setting it, for all threads.
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("Umask:"):
                return line.split()[1]
    return ABSENT


def _affinity() -> str:
    # By pid, since 0 would be the calling thread.
    return _ranges(os.sched_getaffinity(os.getpid()))


def _open_files() -> int:
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _ranges(numbers: Iterable[int]) -> str:
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


_PROBES: dict[str, Callable[[], object]] = {
    "python.version": lambda: sys.version.split()[0],
    "python.build": lambda: sys.version,
    "python.implementation": lambda: sys.implementation.name,
    "python.executable": lambda: sys.executable,
    "python.prefix": lambda: sys.prefix,
    "python.base_prefix": lambda: sys.base_prefix,
    "python.path": lambda: list(sys.path),
    "python.flags": _flags,
    "python.options": lambda: sys._xoptions,  # noqa: SLF001  documented for CPython
    "python.warnings": lambda: sys.warnoptions,
    "python.hash_randomization": lambda: bool(sys.flags.hash_randomization),
    "python.gil": _has_gil,
    "python.float_repr_style": lambda: sys.float_repr_style,
    "python.byteorder": lambda: sys.byteorder,
    "python.filesystem_encoding": sys.getfilesystemencoding,
    "process.locale": _locale_in_effect,
    "process.time_zone": lambda: list(time.tzname),
    "process.umask": _umask,
    "process.affinity": _affinity,
    "process.open_files": _open_files,
}
