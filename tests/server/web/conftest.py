"""Clients of the pages: of one user's service, and of one that asks for tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient

from manifest.models import Manifest, Verdict
from manifest_server.app import create_app
from manifest_server.settings import ServerSettings
from manifest_server.sqlstore import SqlStore

PutRun = Callable[..., Manifest]
MakeManifest = Callable[..., Manifest]

HTML = {"Accept": "text/html"}


@pytest.fixture
def pages(store_url: str) -> Iterator[TestClient]:
    """A browser at an empty service, on each kind of database in turn."""
    app = create_app(ServerSettings(database_url=store_url))
    with TestClient(app, base_url="http://localhost", headers=HTML) as client:
        yield client


@pytest.fixture
def runs(pages: TestClient) -> SqlStore:
    """The store behind the pages."""
    store: SqlStore = pages.app.state.store  # type: ignore[attr-defined] # of FastAPI
    return store


@pytest.fixture
def guarded(store_url: str) -> Iterator[TestClient]:
    """The same, where tokens are asked for."""
    app = create_app(ServerSettings(database_url=store_url, auth="tokens"))
    with TestClient(
        app, base_url="http://localhost", headers=HTML, follow_redirects=False
    ) as client:
        yield client


@pytest.fixture
def put_run(client: TestClient, make_manifest: MakeManifest) -> PutRun:
    """A function that puts a run of `make_manifest`, with its verdict if it has one."""

    def put(*, outcome: str | None = None, **changes: object) -> Manifest:
        run = make_manifest(**changes)
        body = run.model_dump_json(by_alias=True, exclude_unset=True)
        assert client.put(f"/api/v1/runs/{run.id}", content=body).status_code == 200
        if outcome is not None:
            verdict = Verdict.model_validate(
                {
                    "outcome": outcome,
                    "original": run.replay_of,
                    "replay": run.id,
                    "sentence": f"it was {outcome}",
                }
            )
            address = f"/api/v1/runs/{run.id}/verdict"
            assert client.put(address, content=verdict.model_dump_json()).status_code == 204
        return run

    return put
