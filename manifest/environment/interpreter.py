"""The interpreter and what the system gave its process."""

from __future__ import annotations

import _locale
import os
import sys
import time
from collections.abc import Callable

from manifest.canonical import Json, attempted
from manifest.environment import given


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


def _affinity() -> str:
    # By pid, since 0 would be the calling thread.
    return given.ranges(os.sched_getaffinity(os.getpid()))


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
    "process.umask": given.umask,
    "process.affinity": _affinity,
    "process.open_files": given.open_files,
}
