"""A service without a database, around which one layer at a time is put."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from starlette.testclient import TestClient

from manifest_server.problems import add_problems

Wrap = Callable[..., TestClient]


@pytest.fixture
def wrapped() -> Wrap:
    """Put a layer around a service that says what it was sent."""

    def wrap(layer: Any, *arguments: Any, **options: Any) -> TestClient:
        app = FastAPI()
        add_problems(app)

        @app.put("/echo")
        async def echo(request: Request) -> Response:
            return Response(await request.body(), headers={"X-Seen": str(len(request.headers))})

        @app.get("/fault")
        def fail() -> None:
            raise RuntimeError("password=hunter2")

        app.add_middleware(layer, *arguments, **options)
        return TestClient(app, base_url="http://localhost")

    return wrap
