"""Links: where else this run is kept, such as the run of a tracker that the program logs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from manifest.canonical import Json, plain
from manifest.environment.redaction import redact_url

_MOST_VALUES = 32  # of a key: as many as can be searched


class Listener(Protocol):
    """Whoever writes down what is learnt."""

    def section(self, name: str, values: dict[str, Json]) -> None:
        """Record facts of one section."""


class Links:
    """What one process has been told of its run elsewhere."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._told: dict[str, list[Json]] = {}

    def add(self, where: str, facts: Mapping[str, object]) -> None:
        """Record where a run is found; a program may log to several.

        Args:
            where: The tracker, or whatever else keeps it.
            facts: What it is called there. One that is None is not known.
        """
        for name, value in facts.items():
            if value is not None:
                self._tell(f"{where}.{name}", plain(redact_url(str(value))))

    def _tell(self, key: str, value: Json) -> None:
        values = self._told.setdefault(key, [])
        if value not in values and len(values) < _MOST_VALUES:
            values.append(value)
            self._listener.section("links", {key: value if len(values) == 1 else list(values)})
