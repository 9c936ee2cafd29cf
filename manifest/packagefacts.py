"""What is recorded of packages beyond their versions: where from, and what of them ran."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from manifest.background import undisturbed
from manifest.canonical import Json

if TYPE_CHECKING:
    from manifest.environment.editable import Editables
    from manifest.environment.imported import Installed


class PackageFacts:
    """The packages of one process.

    Args:
        root: The folder of the project, which may be installed too.
        on_facts: Told facts, with the section that they belong to.
    """

    def __init__(self, root: Path, on_facts: Callable[[str, dict[str, Json]], None]) -> None:
        self.has_begun = False
        self._root = root
        self._on_facts = on_facts
        self._editables: Editables | None = None
        self._installed: Installed | None = None

    def learn(self) -> None:
        """Learn what the disk tells; reads many files and may run git, so never in the foreground.

        Later facts lie over earlier ones, and what is told by then stays if git does not answer.
        """
        self.has_begun = True
        with undisturbed():
            from manifest.environment import editable, imported, packages
        origins = packages.capture_package_origins(sys.path)
        self._editables = editable.Editables(origins, self._root)
        self._on_facts("environment", {"packages.origins": origins})
        self.learn_sources()
        self._installed = imported.Installed(sys.path)
        self._tell("environment", "packages.origins", self._editables.repositories())

    def learn_sources(self) -> None:
        """Learn which source of packages that may be edited has run since."""
        if self._editables is not None:
            self._tell("code", "installed", self._editables.sources())

    def finish(self, *, is_alone: bool) -> None:
        """Learn what has been imported in the end.

        Args:
            is_alone: Whether this process started no other, which may have imported more.
        """
        self.learn_sources()
        if is_alone and self._installed is not None:
            self._tell("code", "imported", self._installed.loaded())

    def _tell(self, section: str, key: str, facts: Json) -> None:
        if facts:
            self._on_facts(section, {key: facts})
