"""MLflow: its runs carry the id of the manifest, and the manifest carries theirs.

MLflow finds `RunContext` by an entry point and asks it for tags whenever a run is made. Which run
that becomes is known a moment later, when MLflow makes it the active one.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

from manifest import recorder
from manifest.environment.redaction import redact_url

_watched: type | None = None


class RunContext:
    """What MLflow asks for tags: those that lead from a run of MLflow to the manifest."""

    def in_context(self) -> bool:
        """Whether this program is recorded."""
        return recorder.active() is not None

    def tags(self) -> dict[str, str]:
        """The id of the run, its page where a service is named, and the run that it replays."""
        recording = recorder.active()
        if recording is None:
            return {}
        with recording.guarded("links"):
            _watch_active_runs()
        run_id, service = recording.run.id, os.environ.get("MANIFEST_URL", "").rstrip("/")
        found = {
            "manifest.run_id": run_id,
            "manifest.url": f"{redact_url(service)}/runs/{run_id}" if service else None,
            "manifest.replay_of": recording.origin.get("replay_of"),
        }
        return {name: value for name, value in found.items() if value is not None}


def link(run: Any) -> None:
    """Record which run of MLflow this program logs to.

    Runs that `mlflow.start_run` makes are linked by themselves. Call this for others: one that is
    resumed, or that a client or a logger of a framework made.

    Args:
        run: A run as MLflow gives it, with an `info`.

    Example:
        >>> link(client.get_run(logger.run_id))  # doctest: +SKIP
    """
    recording = recorder.active()
    if recording is None:
        return
    with recording.guarded("links"):
        info, tracking_uri = run.info, sys.modules["mlflow"].get_tracking_uri()
        page = f"{tracking_uri}/#/experiments/{info.experiment_id}/runs/{info.run_id}"
        facts = {
            "run_id": info.run_id,
            "run_name": info.run_name,
            "experiment_id": info.experiment_id,
            "tracking_uri": tracking_uri,
            "url": page if tracking_uri.startswith(("http://", "https://")) else None,
        }
        recording.links.add("mlflow", facts)


def _watch_active_runs() -> None:
    global _watched
    kind = sys.modules["mlflow"].ActiveRun
    if kind is _watched:
        return
    make = kind.__init__

    @functools.wraps(make)
    def make_and_link(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        link(self)

    kind.__init__, _watched = make_and_link, kind
