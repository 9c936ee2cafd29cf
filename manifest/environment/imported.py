"""Installed packages of which a process has loaded anything; of the others, surely nothing."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from manifest.environment.mapped import mapped_files
from manifest.environment.packages import distributions

_TOP = re.compile(rb'"?([^/,]+)')
_SHARED_LIBRARY = re.compile(rb'"?([^,"]+\.so[^,"/]*)')
_MOST_BYTES = 8 * 2**20


class Installed:
    """What is installed along a search path, by what its import would load.

    In doubt a package counts as loaded: where it does not list its files, or runs from elsewhere.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        """Read the list of files of each package: for a background thread.

        Args:
            paths: Folders to search, as in `sys.path`.
        """
        folders: dict[str, str] = {}
        for name, _, folder in distributions(paths):
            folders.setdefault(name, folder)  # the first along the path counts
        real = _RealPaths()
        self._packages = {name: _contents(name, folder, real) for name, folder in folders.items()}

    def loaded(self) -> list[str]:
        """The names of those of which this process has loaded a module or a shared library."""
        modules = {name.partition(".")[0] for name in list(sys.modules)}
        mapped = set(mapped_files())
        return sorted(
            name
            for name, package in self._packages.items()
            if package is None
            or not modules.isdisjoint(package.modules)
            or not mapped.isdisjoint(package.libraries)
        )


class _Contents(NamedTuple):
    modules: frozenset[str]
    libraries: frozenset[str]


class _RealPaths(dict[str, str]):
    """Where folders really lie, as many files lie in each."""

    def __missing__(self, folder: str) -> str:
        self[folder] = os.path.realpath(folder)
        return self[folder]

    def of_file(self, path: str) -> str:
        folder, name = os.path.split(path)
        path = os.path.join(self[folder], name)
        return os.path.realpath(path) if os.path.islink(path) else path


def _contents(name: str, folder: str, real: _RealPaths) -> _Contents | None:
    try:
        with open(os.path.join(folder, "RECORD"), "rb") as file:
            files = file.read(_MOST_BYTES + 1)
    except OSError:
        return None
    lines = files.split(b"\n")
    # Of ten thousand files few beginnings are left, and only those are looked at closely.
    tops = _matches(_TOP, {line.partition(b"/")[0] for line in lines})
    if not tops or len(files) > _MOST_BYTES or any(top.endswith(".pth") for top in tops):
        return None
    site = os.path.dirname(folder)
    lines = [line for line in lines if b".so" in line] if b".so" in files else []
    libraries = _matches(_SHARED_LIBRARY, lines)
    return _Contents(
        modules=frozenset({top.partition(".")[0] for top in tops} | {name.replace("-", "_")}),
        libraries=frozenset(real.of_file(os.path.join(site, path)) for path in libraries),
    )


def _matches(form: re.Pattern[bytes], lines: Iterable[bytes]) -> set[str]:
    return {os.fsdecode(match[1]) for line in lines if (match := form.match(line)) is not None}
