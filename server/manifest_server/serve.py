"""Run the application under uvicorn."""

from __future__ import annotations

import uvicorn

from manifest_server.app import create_app
from manifest_server.settings import ServerSettings


def serve(settings: ServerSettings) -> None:
    """Serve until a signal ends it; requests that are under way are answered first."""
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_level="info",
        server_header=False,
        timeout_graceful_shutdown=30,
    )
