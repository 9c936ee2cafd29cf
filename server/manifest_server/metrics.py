"""What the service counts of itself, for Prometheus; each process for itself."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from starlette.types import Scope

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_METHODS: Final = {"GET", "HEAD", "PUT", "POST", "DELETE"}
_PUT_RUN: Final = ("PUT", "/api/v1/runs/{run_id}", 200)


class Metrics:
    """Counters of one application.

    Labels have few values, whatever strangers send: a path that is none of ours is `other`.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "manifest_requests",
            "Requests that were answered.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "manifest_request_seconds",
            "How long requests took.",
            ["route"],
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
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = getattr(scope.get("route"), "path", "other")
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(route).observe(seconds)
        problem = scope.get("state", {}).get("problem")
        if problem is not None:
            self._problems.labels(problem).inc()
        if (method, route, status) == _PUT_RUN:
            self._runs_put.inc()

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self._registry)
