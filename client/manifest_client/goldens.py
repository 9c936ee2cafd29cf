"""Goldens of tests, as files: written, compared with, and what is said where one does not hold."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from manifest.errors import GoldenInvalid
from manifest.goldens.surroundings import changed
from manifest.goldens.texts import Golden, read
from manifest.goldens.watching import Seen, parting

FOLDER: Final = "goldens"
"""Where goldens lie, beside the file of the test."""

_WIDTH: Final = 100
_MOST_DIFFERENCES: Final = 8


@dataclass(frozen=True)
class Test:
    """A test whose training has a golden."""

    file: Path
    nodeid: str
    folder: Path
    """From which paths are shown."""

    @property
    def name(self) -> str:
        """The test by the name of its file, wherever that lies."""
        return f"{self.file.name}::{self._within}"

    @property
    def golden(self) -> Path:
        """Where its golden lies."""
        name = re.sub(r"[^\w.-]+", "_", self._within).strip("_")
        return self.file.parent / FOLDER / self.file.stem / f"{name}.json"

    @property
    def shown(self) -> str:
        """Where its golden lies, in few words."""
        return os.path.relpath(self.golden, self.folder)

    @property
    def to_write(self) -> str:
        """The command that writes its golden."""
        return f"pytest {shlex.quote(self.nodeid)} --manifest-golden=write"

    @property
    def _within(self) -> str:
        return self.nodeid.partition("::")[2]


def write(test: Test, seen: Seen) -> str | None:
    """Write what was seen as the golden of a test; returns why not, if it cannot be."""
    if seen.problem is not None:
        return _said(f"has no golden to write: {seen.problem}.")
    try:
        other = _kept(test.golden)
    except GoldenInvalid:  # as after a merge: it is written anew
        other = None
    if other is not None and other.test != test.name:
        return _said(f"would take the place of {other.test} in {test.shown}.")
    test.golden.parent.mkdir(parents=True, exist_ok=True)
    draft = test.golden.with_name(f"{test.golden.name}.{os.getpid()}")
    draft.write_text(seen.text, encoding="utf-8")
    draft.replace(test.golden)
    return None


def compare(test: Test, seen: Seen) -> str | None:
    """Compare what was seen with the golden of a test; returns where it differs, and why."""
    if seen.problem is not None:
        return _said(f"cannot be compared with its golden: {seen.problem}.")
    try:
        golden = _kept(test.golden)
        if golden is None:
            why = f"has no golden yet: there is no {test.shown}."
            return _said(why, f"To write it: {test.to_write}")
        if golden.test != test.name:
            return _said(f"has no golden: {test.shown} is that of {golden.test}.")
        now = read(seen.text)
        found = parting(golden, now)
    except GoldenInvalid as error:
        return _said(f"cannot be compared with {test.shown}: {error}")
    if found is None:
        return None
    why = f"is not that of its golden: {found}."
    return _said(why, _explained(golden, now), f"If that is meant: {test.to_write}")


def _kept(path: Path) -> Golden | None:
    try:
        return read(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise GoldenInvalid(str(error)) from error


def _said(why: str, *more: str) -> str:
    return "\n\n".join((f"The training {why}", *more))


def _explained(golden: Golden, now: Golden) -> str:
    from rich.text import Text

    from manifest_client.rendering.diffs import difference_lines
    from manifest_client.rendering.terminal import indented, styled

    differences = changed(golden.settings, now.settings)
    if not differences:
        said = (
            "Optimizers, settings and machine are as they were when the golden was written: the "
            "program or its data changed, or it is not deterministic, which `manifest audit` tells."
        )
        return indented(styled(said), 0, _WIDTH).plain
    visible = differences[:_MOST_DIFFERENCES]
    lines = [
        Text("What differs from when the golden was written, and can explain it:"),
        *difference_lines(visible, width=_WIDTH, is_whole=False),
    ]
    if len(visible) < len(differences):
        lines.append(Text(f"  and {len(differences) - len(visible)} more"))
    return Text("\n").join(lines).plain
