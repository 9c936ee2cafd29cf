"""The run that a replay repeats: what it recorded of the process that reads this.

Read when the first of it is needed, from the journal of the process of the same name. What cannot
be read was not recorded, as far as this process can tell.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from manifest.canonical import Json, digest_bytes
from manifest.folding import sections_of
from manifest.generators import is_shared, restore_shared
from manifest.journal import Entry
from manifest.places import is_installed
from manifest.restoring import RestoredItem
from manifest.rundir import RunDirectory
from manifest.seeding import MOST_SEEDS_IN_ORDER, RecordedSeed

REPLAY = "MANIFEST_REPLAY"
"""Names the directory of the run that is replayed."""
CHANGED = "MANIFEST_REPLAY_CHANGED"
"""Set if the replay was given other arguments, variables or settings on purpose."""
SET = "MANIFEST_SET"
"""Settings that the replay is to have instead, by their keys in the catalogue, as JSON."""

_DRAWN_BEFORE = "it was in another state: what was drawn from it before is not the same"
_BY_PURPOSE = "the replay was given other arguments or variables on purpose"


class Original:
    """What one process of the recorded run was, for the process that repeats it."""

    def __init__(self, run: RunDirectory, process: str, environ: Mapping[str, str]) -> None:
        self._run = run
        self._process = process
        self._environ = environ
        self._verdicts: dict[str, str] = {}

    def of_fork(self, process: str) -> Original:
        """The same for a forked child."""
        return Original(self._run, process, self._environ)

    @functools.cached_property
    def generators(self) -> dict[str, Any]:
        """The generators of this process, by name."""
        return sections_of(self._entries).get("generators", {})

    @property
    def is_changed(self) -> bool:
        """Whether the replay was asked to be another on purpose."""
        return bool(self._environ.get(CHANGED))

    @property
    def is_asked_for_settings(self) -> bool:
        """Whether the replay was asked to have other settings."""
        return bool(self._environ.get(SET))

    @functools.cached_property
    def start(self) -> dict[str, Json]:
        """The settings that this process began with."""
        found: dict[str, Json] = {}
        for entry in self._entries:
            if entry["kind"] == "start":
                found.update(entry["settings"])
        return found

    def restore_generators(self) -> list[RestoredItem]:
        """Put back the generators that the whole program shares."""
        shared = {name: entry for name, entry in self.generators.items() if is_shared(name)}
        return [
            item._replace(reason=_DRAWN_BEFORE) if item.outcome == "restored" else item
            for item in restore_shared(shared)
        ]

    def restore_settings(self, library: str | None) -> list[RestoredItem]:
        """Put back the settings with which the program began."""
        from manifest.settings import restore_settings

        names = self._changed_variables() if self.is_changed else []
        if not names:
            return restore_settings(self.start, library=library)
        reason = f"not put back, since {', '.join(names[:3])} was changed on purpose"
        return [RestoredItem("settings", "skipped", reason)] if self.start else []

    def set_as_asked(self, library: str) -> list[RestoredItem]:
        """Set what the replay was asked to set instead, of one library; '' for the interpreter."""
        from manifest.settings import libraries_of, restore_settings

        asked = self._asked
        keys = libraries_of(asked).get(library, [])
        items = restore_settings({key: asked[key] for key in keys}, library=library)
        return [
            item._replace(reason="as it was asked for") if item.is_settled else item
            for item in items
        ]

    def asked_libraries(self) -> list[str]:
        """The libraries of which settings are to be others."""
        from manifest.settings import libraries_of

        return list(libraries_of(self._asked))

    def unknown_settings(self) -> list[RestoredItem]:
        """What was asked for and is no setting."""
        from manifest.settings import libraries_of

        known = {key for keys in libraries_of(self._asked).values() for key in keys}
        return [
            RestoredItem(key, "failed", "asked for, but not in the catalogue")
            for key in sorted(self._asked.keys() - known)
        ]

    def seed(self, place: str, ordinal: int, path: str) -> RecordedSeed:
        """The seed that was given at this place, after `ordinal` others; see `seeding`."""
        given = self._seeds.get(place, [])
        if ordinal >= len(given):
            return RecordedSeed(reason=_why_none(len(given)))
        entry = given[ordinal]
        reason = _BY_PURPOSE if self.is_changed else self._why_not(place, path)
        return RecordedSeed(entry["seed"], entry.get("exact"), reason)

    @functools.cached_property
    def _asked(self) -> dict[str, Json]:
        found = json.loads(self._environ.get(SET) or "{}")
        return found if isinstance(found, dict) else {}

    @functools.cached_property
    def _entries(self) -> list[Entry]:
        return self._run.entries_of(self._process)

    @functools.cached_property
    def _seeds(self) -> dict[str, list[Entry]]:
        found: dict[str, list[Entry]] = {}
        for entry in self._entries:
            if entry["kind"] == "seed":
                found.setdefault(entry["place"], []).append(entry)
        return found

    def _why_not(self, place: str, path: str) -> str:
        if path not in self._verdicts:
            self._verdicts[path] = self._why_not_of(place.rpartition(":")[0], path)
        return self._verdicts[path]

    def _why_not_of(self, name: str, path: str) -> str:
        if os.path.basename(path)[:1] == "<" or is_installed(path):
            return ""  # part of the command, or of a package, which the plan compares
        recorded = next((files[name] for files in self._files() if name in files), None)
        if recorded is None:
            return "whether its source is as it was recorded is not known"
        is_same = digest_bytes(Path(path).read_bytes()) == recorded
        return "" if is_same else "its source was changed since"

    def _files(self) -> Iterator[dict[str, Json]]:
        return (sections.get("code", {}).get("files", {}) for sections in self._lineage())

    def _changed_variables(self) -> list[str]:
        from manifest.environment import variables

        recorded = next((s["environment"] for s in self._lineage() if "environment" in s), {})
        as_recorded = variables.restore_variables(recorded, self._environ) if recorded else {}
        return [
            name
            for name in sorted({*self._environ, *as_recorded} if recorded else ())
            if variables.is_restorable(name)
            and name != "PYTHONHASHSEED"
            and self._environ.get(name) != as_recorded.get(name)
        ]

    def _lineage(self) -> Iterator[dict[str, dict[str, Json]]]:
        """What this process recorded, then the one that started it, and so on."""
        name = self._process
        while name:
            yield sections_of(self._run.entries_of(name))
            name = name.rpartition(".")[0]
        yield sections_of(self._run.entries_of("run"))


def original_of(
    origin: Mapping[str, Any], process: str, environ: Mapping[str, str]
) -> Original | None:
    """What a process of a run repeats; None if the run is no replay.

    Args:
        origin: What the run began with.
        process: The name of the process.
        environ: Its environment, which a program may have inherited from another replay.
    """
    path = Path(environ.get(REPLAY, ""))
    if not origin.get("replay_of") or origin["replay_of"] != path.name:
        return None
    return Original(RunDirectory(path), process, environ)


def _why_none(count: int) -> str:
    if count == 0:
        return "no seed was recorded at this place"
    if count == MOST_SEEDS_IN_ORDER:
        return f"only the first {count} seeds of a place are kept"
    return f"only {count} seeds were recorded at this place"
