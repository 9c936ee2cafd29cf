"""What keeps runs: one protocol for the embedded store and, later, the service."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from manifest.filtering import Filter
from manifest.models import Manifest, RunSummary, Verdict


class Store(Protocol):
    """Where runs are kept, listed and found.

    Every write is idempotent: the same run with the same digest may be put any number of times.
    """

    def put_run(self, manifest: Manifest, verdict: Verdict | None = None) -> None:
        """Keep a run, replacing what was known of it while it was still running.

        Raises:
            DigestMismatch: A sealed run with this id and another digest is already kept.
        """

    def put_runs(self, runs: Iterable[tuple[Manifest, Verdict | None]]) -> None:
        """Keep many runs in one transaction."""

    def get_run(self, run_id: str) -> Manifest:
        """The whole manifest of one run.

        Raises:
            RunNotFound: No run has this id.
        """

    def get_verdict(self, run_id: str) -> Verdict | None:
        """The verdict of a replay, or None for any other run."""

    def list_runs(
        self,
        *,
        limit: int = 50,
        before: str | None = None,
        project: str | None = None,
        status: str | None = None,
        wanted: Filter | None = None,
    ) -> list[RunSummary]:
        """The newest runs first; `before` continues after the last id of the previous page."""

    def find_runs(self, prefix: str, *, limit: int = 10) -> list[RunSummary]:
        """Runs whose id starts with `prefix` (dashes may be left out), newest first."""

    def list_replays(self, run_id: str) -> list[RunSummary]:
        """Replays of a run, newest first."""

    def digests(self, run_ids: Iterable[str]) -> dict[str, str]:
        """The digest kept for each of these runs that is known; '' for one not sealed yet."""
