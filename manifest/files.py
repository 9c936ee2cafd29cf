"""The files of a run: source that it executed, inputs that it read, outputs that it wrote.

Source is read the moment it runs, since people edit while a training runs. Noticed by an audit
hook, which cannot be removed: it is inert when nothing records.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_MOST_FILES = 5_000
_SYSTEM_FOLDERS = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/lib/", "/usr/share/", "/run/")
_HEARD = frozenset({"open", "exec"})
_WRITING = os.O_WRONLY | os.O_RDWR


class Files:
    """What one process executed, read and wrote.

    Args:
        is_own: Whether it is Manifest that opens a file now, and not the program.
    """

    def __init__(self, is_own: Callable[[], bool] = lambda: False) -> None:
        self._is_own = is_own
        self.is_active = False
        self.inputs: dict[str, None] = {}
        self.outputs: dict[str, None] = {}
        self._sources: set[str] = set()
        self._executed_names: set[str] = set()
        self._root = ""
        self._on_source: Callable[[Path], None] = lambda path: None
        self._skipped: tuple[str, ...] = ()

    def begin(self, root: Path, on_source: Callable[[Path], None], *, base: Path) -> None:
        """Listen for one run.

        Args:
            root: The folder of the project; source outside it belongs to packages.
            on_source: Told each file of the project when its code first runs.
            base: Where runs are kept; what is there is none of the program's files.
        """
        self.inputs, self.outputs = {}, {}
        self._sources, self._executed_names = set(), set()
        self._root = os.path.join(root, "")
        self._on_source = on_source
        self._skipped = (
            *_SYSTEM_FOLDERS,
            *_installed_folders(),
            os.path.join(os.path.abspath(base), ""),
        )
        self.is_active = True

    def install(self) -> None:
        """Hear from now on; cannot be undone, only silenced by `is_active`."""

        def heard(event: str, args: tuple[Any, ...]) -> None:
            # Called for every audited event of the interpreter, even each `id()`: the common case
            # must leave at once. A bound method would take the interpreter three times as long.
            if event in _HEARD and self.is_active:
                self._heard(event, args)

        sys.addaudithook(heard)

    def take_in_loaded(self) -> None:
        """Take note of the modules of the project that ran before anyone listened."""
        for module in list(sys.modules.values()):
            name = getattr(module, "__dict__", {}).get("__file__")
            if isinstance(name, str) and name.endswith(".py"):
                self.executed(name)

    def _heard(self, event: str, args: tuple[Any, ...]) -> None:
        try:
            if event == "open":
                self._opened(*args)
            else:
                self.executed(getattr(args[0], "co_filename", ""))
        except Exception:  # what is raised here would fail the program's own open()
            pass

    def executed(self, name: str) -> None:
        """Take note of source that runs, by the name that its code carries."""
        if name in self._executed_names or name[:1] == "<":
            return
        if name[:1] == "/" and not name.startswith(self._root):
            return
        self._executed_names.add(name)
        path = os.path.abspath(name)
        is_of_project = path.startswith(self._root) and not path.startswith(self._skipped)
        # Code may carry any text for a file name: a template's, a label.
        if is_of_project and os.path.isfile(path):
            self._sources.add(path)
            self.inputs.pop(path, None)
            self._on_source(Path(path))

    def _opened(self, name: Any, mode: Any, flags: Any) -> None:
        if isinstance(name, bytes):
            name = os.fsdecode(name)
        if not isinstance(name, str) or name.endswith(".pyc"):
            return
        path = os.path.abspath(name)
        if path.startswith(self._skipped) or path in self._sources or self._is_own():
            return
        is_written = bool(flags & _WRITING) if isinstance(flags, int) else "r" not in (mode or "r")
        found = self.outputs if is_written else self.inputs
        if len(found) < _MOST_FILES:
            found[path] = None


def _installed_folders() -> tuple[str, ...]:
    folders = {sys.prefix, sys.base_prefix, sys.exec_prefix}
    folders.add(os.path.dirname(__file__))
    folders.update(path for path in sys.path if path.endswith(("site-packages", "dist-packages")))
    # A project that keeps its environment inside itself is still a project.
    return tuple(os.path.join(folder, "") for folder in folders)


def project_root(start: Path) -> Path:
    """The folder of the project that `start` lies in: its repository, else `start` itself."""
    for folder in (start, *start.parents):
        if (folder / ".git").exists():
            return folder
    return start
