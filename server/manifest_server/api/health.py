"""Whether the service is there, whether it can work, and what it is."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter, Response
from pydantic import BaseModel

from manifest_server.dependencies import Metrics, Reader, Store
from manifest_server.metrics import MEDIA_TYPE
from manifest_server.problems import Problem, documented
from manifest_server.tables import REVISION

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """A sign of life."""

    status: str = "ok"


class Version(BaseModel):
    """What runs here."""

    version: str
    schema_revision: str


@router.get("/healthz")
def get_health() -> Health:
    """Answer while the process lives."""
    return Health()


@router.get("/readyz", responses=documented(503))
def get_readiness(store: Store) -> Health:
    """Answer well only if the database can be reached and has this version's schema."""
    if not store.is_current():
        detail = "the database has an older schema: run `manifest db upgrade`"
        raise Problem(503, "schema-older", detail)
    return Health()


@router.get("/version")
def get_version() -> Version:
    """Say which version runs here, and of which schema its database is."""
    return Version(version=version("manifest-replay"), schema_revision=REVISION)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, **documented(401, 403, 429)},
)
def get_metrics(metrics: Metrics, _: Reader) -> Response:
    """What the service counts of itself, for Prometheus."""
    return Response(metrics.text(), media_type=MEDIA_TYPE)
