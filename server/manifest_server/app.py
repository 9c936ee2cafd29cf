"""The application, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, nullcontext
from importlib.metadata import version

import anyio.to_thread
from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware
from starlette_compress import CompressMiddleware

from manifest_server.api import blobs, catalog, comparisons, docs, health, runs, tokens, trails
from manifest_server.api.description import describe, operation_id
from manifest_server.intake import Intake
from manifest_server.metrics import Metrics
from manifest_server.middleware.access_log import AccessLog
from manifest_server.middleware.bodies import Bodies
from manifest_server.middleware.hosts import Hosts
from manifest_server.middleware.request_ids import RequestIds
from manifest_server.middleware.security_headers import SecurityHeaders
from manifest_server.objects import open_objects
from manifest_server.problems import add_problems
from manifest_server.rates import Rates
from manifest_server.settings import ServerSettings
from manifest_server.sqlstore import SqlStore
from manifest_server.web import pages
from manifest_server.web.errors import add_error_pages

_THREADS = {"sqlite": 2, "postgresql": 4}
"""How many requests work at once: sqlite3 gives the GIL away at every row, so that many readers
only hold each other up."""


def create_app(settings: ServerSettings) -> FastAPI:
    """Make the service; nothing is opened before it starts."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        writer = app.state.writer
        with (
            nullcontext() if writer is None else closing(writer),
            opened_store(settings) as store,
            Intake(store, most_waiting=settings.most_waiting_runs, writer=writer) as intake,
        ):
            app.state.store = store
            app.state.intake = intake
            limiter = anyio.to_thread.current_default_thread_limiter()
            limiter.total_tokens = _THREADS[store.backend]
            yield

    metrics = Metrics()
    app = FastAPI(
        title="Manifest",
        summary="Training runs, recorded so exactly that they can be run again bit for bit.",
        lifespan=lifespan,
        middleware=_middleware(settings, metrics),
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        version=version("manifest-replay"),
        generate_unique_id_function=operation_id,
        redirect_slashes=False,  # one address for each thing
    )
    app.state.settings = settings
    app.state.writer = None  # see `serve`
    app.state.metrics = metrics
    app.state.rates = Rates(settings.requests_per_second)
    add_problems(app)
    api = APIRouter()
    for module in (runs, trails, blobs, comparisons, catalog, tokens):
        api.include_router(module.router)
    # First, as programs ask more often, and routes are tried one by one. With the prefix here, no
    # route is made only to see whether its path is empty.
    app.include_router(api, prefix="/api/v1")
    app.include_router(health.router)
    app.include_router(docs.router)
    app.include_router(pages.router)
    add_error_pages(app)
    describe(app, bodies=[runs.NewRuns])
    return app


def opened_store(settings: ServerSettings) -> SqlStore:
    """Open the store that a service keeps its runs in.

    Raises:
        StoreUnusable: The database cannot be used, or its schema is another.
    """
    objects = None
    if settings.blob_url is not None:
        objects = open_objects(settings.blob_url, endpoint=settings.blob_endpoint)
    return SqlStore.open(settings.database_url, objects=objects)


def _middleware(settings: ServerSettings, metrics: Metrics) -> list[Middleware]:
    """What requests pass, from the outside in."""

    def most_bytes(path: str) -> int:
        if path.startswith("/api/v1/blobs/") or "/files/" in path:
            return settings.most_blob_bytes
        return settings.most_row_bytes if "/trails/" in path else settings.most_manifest_bytes

    return [
        Middleware(RequestIds),
        Middleware(SecurityHeaders),
        Middleware(AccessLog, metrics.observe),
        Middleware(Hosts, [*settings.allowed_hosts, settings.host]),
        Middleware(CompressMiddleware, minimum_size=1024, brotli=False, zstd_level=3, gzip_level=1),
        Middleware(Bodies, most_bytes, slow_seconds=settings.slow_body_seconds),
    ]
