"""What the service counts of itself, for Prometheus; each process for itself."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from starlette.types import Scope

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_PUT_RUN: Final = ("put_run", 200)


class Metrics:
    """Counters of one application.

    Operations are named as in the API's description; what is none of them is `other`, so that
    labels have few values, whatever strangers send.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "manifest_requests",
            "Requests that were answered.",
            ["operation", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "manifest_request_seconds",
            "How long requests took.",
            ["operation"],
            buckets=_BOUNDS,
            registry=self._registry,
        )
        self._problems = Counter(
            "manifest_problems",
            "Answers that were errors, by their code; store-unusable tells of the database.",
            ["code"],
            registry=self._registry,
        )
        self._runs_put = Counter(
            "manifest_runs_put", "Runs that were kept, or kept again.", registry=self._registry
        )

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request that is over."""
        operation = getattr(scope.get("route"), "name", "other")
        self._requests.labels(operation, status).inc()
        self._seconds.labels(operation).observe(seconds)
        problem = scope.get("state", {}).get("problem")
        if problem is not None:
            self._problems.labels(problem).inc()
        if (operation, status) == _PUT_RUN:
            self._runs_put.inc()

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self._registry)
