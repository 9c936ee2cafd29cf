"""The service as its clients see it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from manifest_migrations.upgrade import open_store
from manifest_server.app import create_app
from manifest_server.settings import ServerSettings


@pytest.fixture
def client(database_url: str) -> Iterator[TestClient]:
    """A client of an empty service, on each kind of database in turn."""
    open_store(database_url).close()
    app = create_app(ServerSettings(database_url=database_url))
    with TestClient(app, base_url="http://localhost") as opened:
        yield opened
