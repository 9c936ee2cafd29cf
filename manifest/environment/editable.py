"""Packages that run from a folder of their own: the source of them that ran, and its repository.

What is installed for editing changes without another version. The project itself is no such
package: its source is kept whole. Nor is Manifest, which computes nothing.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from manifest.canonical import Json, digest_bytes
from manifest.environment.packages import capture_package_origins

_MOST_REPOSITORIES: Final = 4
_MOST_FILES: Final = 2_000
_MOST_BYTES_A_FILE: Final = 16 * 2**20
_MOST_BYTES_OF_CHANGES: Final = 8 * 2**20
_TIMEOUT_SECONDS: Final = 10
_THIS: Final = os.path.realpath(__file__)


class Editables:
    """The packages of one process that run from folders outside its project."""

    def __init__(self, origins: Mapping[str, Json], root: Path) -> None:
        """Look for them.

        Args:
            origins: As `capture_package_origins` gives them.
            root: The folder of the project.
        """
        project = os.path.realpath(root)
        folders = {name: _folder(origin) for name, origin in origins.items()}
        self.folders = {
            name: folder
            for name, folder in folders.items()
            if folder is not None
            and not _is_within(folder, project)
            and not _is_within(_THIS, folder)
        }
        self._seen: set[str] = set()

    def sources(self) -> dict[str, Json]:
        """The digests of modules that were imported since this was last asked.

        Returns:
            By package and path relative to its folder. Source is read here, soon after it ran.
        """
        found: dict[str, Json] = {}
        for path in sorted(_imported_files()) if self.folders else ():
            place = self._place(path)
            if place is None or path in self._seen or len(self._seen) >= _MOST_FILES:
                continue
            self._seen.add(path)
            digest = _digest(path)
            if digest is not None:
                name, relative = place
                found.setdefault(name, {})[relative] = digest
        return found

    def repositories(self) -> dict[str, dict[str, Json]]:
        """The state of the repository of each; runs git, so never in the foreground."""
        found: dict[str, dict[str, Json]] = {}
        states: dict[str, dict[str, Json]] = {}
        ends_at = time.monotonic() + _TIMEOUT_SECONDS
        for name, folder in self.folders.items():
            top = _repository(folder)
            if top is None:
                continue
            if top not in states:
                if len(states) >= _MOST_REPOSITORIES or time.monotonic() > ends_at:
                    break
                states[top] = _state(top)
            found[name] = states[top]
        return found

    def _place(self, path: str) -> tuple[str, str] | None:
        for name, folder in self.folders.items():
            if _is_within(path, folder):
                return name, os.path.relpath(path, folder)
        return None


def changed_sources(
    recorded: Mapping[str, Any], paths: Sequence[str], *, root: Path
) -> dict[str, str]:
    """Say of which packages the source that a run imported is another now.

    Args:
        recorded: What the run has under ``installed`` in its section ``code``; not trusted.
        paths: The search path of the interpreter that is to run it again.
        root: The folder of the project.

    Returns:
        For each such package what changed, in words.
    """
    folders = Editables(capture_package_origins(paths), root).folders
    changed = {
        name: _change(files, folders.get(name))
        for name, files in recorded.items()
        if isinstance(files, dict)
    }
    return {name: change for name, change in changed.items() if change is not None}


def _change(files: Mapping[str, Any], folder: str | None) -> str | None:
    if folder is None:
        return "ran from a folder of its own, and is not installed like that here"
    for relative, digest in files.items():
        path = os.path.realpath(os.path.join(folder, relative))
        if not _is_within(path, folder):
            return f"{relative[:200]!r} leaves its folder"
        if _digest(path) != digest:
            return f"{relative[:200]} is another than the run imported"
    return None


def _folder(origin: Any) -> str | None:
    if not isinstance(origin, dict) or not origin.get("editable"):
        return None
    parts = urlsplit(str(origin.get("url")))
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        return None
    return os.path.realpath(unquote(parts.path))


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(os.path.join(folder, ""))


def _imported_files() -> set[str]:
    # Not by getattr(), which may run code of the module's.
    names = (
        getattr(module, "__dict__", {}).get("__file__") for module in list(sys.modules.values())
    )
    found = {name for name in names if isinstance(name, str) and name.endswith((".py", ".so"))}
    return {os.path.realpath(name) for name in found}


def _digest(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES_A_FILE + 1)
    except OSError:
        return None
    return digest_bytes(content) if len(content) <= _MOST_BYTES_A_FILE else None


def _repository(folder: str) -> str | None:
    for above in (Path(folder), *Path(folder).parents):
        if (above / ".git").exists():
            return str(above)
    return None


def _state(top: str) -> dict[str, Json]:
    from manifest.environment.source import capture_source

    state = capture_source(
        Path(top), most_bytes=_MOST_BYTES_OF_CHANGES, timeout_seconds=_TIMEOUT_SECONDS
    )
    values: dict[str, Json] = {"commit": state.commit, "tree": state.tree}
    if state.problem is None:
        values["dirty"] = state.is_dirty
    return {key: value for key, value in values.items() if value is not None}
