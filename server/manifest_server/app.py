"""The application, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi import APIRouter, FastAPI

from manifest_server.api import blobs, catalog, comparisons, health, runs, tokens, trails
from manifest_server.objects import open_objects
from manifest_server.problems import add_problems
from manifest_server.settings import ServerSettings
from manifest_server.sqlstore import SqlStore

_THREADS = {"sqlite": 2, "postgresql": 4}
"""How many requests work at once: sqlite3 gives the GIL away at every row, so that many readers
only hold each other up."""


def create_app(settings: ServerSettings) -> FastAPI:
    """Make the service; nothing is opened before it starts."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        objects = None
        if settings.blob_url is not None:
            objects = open_objects(settings.blob_url, endpoint=settings.blob_endpoint)
        with SqlStore.open(settings.database_url, objects=objects) as store:
            app.state.store = store
            limiter = anyio.to_thread.current_default_thread_limiter()
            limiter.total_tokens = _THREADS[store.backend]
            yield

    app = FastAPI(
        title="Manifest",
        summary="Training runs, recorded so exactly that they can be run again bit for bit.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )
    app.state.settings = settings
    add_problems(app)
    app.include_router(health.router)
    api = APIRouter(prefix="/api/v1")
    for module in (runs, trails, blobs, comparisons, catalog, tokens):
        api.include_router(module.router)
    app.include_router(api)
    return app
