"""The service as its clients see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from manifest_migrations.upgrade import open_store
from manifest_server.app import create_app
from manifest_server.database import sqlite_url
from manifest_server.intake import Intake
from manifest_server.settings import ServerSettings
from manifest_server.sqlstore import SqlStore


@pytest.fixture
def client(database_url: str) -> Iterator[TestClient]:
    """A client of an empty service, on each kind of database in turn."""
    open_store(database_url).close()
    app = create_app(ServerSettings(database_url=database_url))
    with TestClient(app, base_url="http://localhost") as opened:
        yield opened


@pytest.fixture
def simple_client(sqlite_path: Path) -> Iterator[TestClient]:
    """A client of an empty service, for what no database has a part in."""
    url = sqlite_url(sqlite_path).render_as_string()
    open_store(url).close()
    with TestClient(
        create_app(ServerSettings(database_url=url)), base_url="http://localhost"
    ) as opened:
        yield opened


@pytest.fixture
def limited(sqlite_path: Path) -> Iterator[Callable[..., tuple[TestClient, SqlStore]]]:
    """A function that starts a service with settings of its own, and gives its store."""
    url = sqlite_url(sqlite_path).render_as_string()
    with open_store(url) as store, Intake(store, most_waiting=10) as intake:

        def start(**settings: object) -> tuple[TestClient, SqlStore]:
            app = create_app(ServerSettings.model_validate({"database_url": url, **settings}))
            app.state.store, app.state.intake = store, intake
            return TestClient(app, base_url="http://localhost"), store

        yield start
