"""Tokens let in whom they were made for, to what they were made for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from starlette.testclient import TestClient

from manifest.models import Manifest, Scope
from manifest_migrations.upgrade import open_store
from manifest_server.app import create_app
from manifest_server.database import sqlite_url
from manifest_server.settings import ServerSettings
from manifest_server.sqlstore import SqlStore

MakeManifest = Callable[..., Manifest]


@pytest.fixture
def guarded(store_url: str) -> Iterator[tuple[TestClient, SqlStore]]:
    """A service that asks for tokens, and the store behind it."""
    with SqlStore.open(store_url) as store:
        settings = ServerSettings(database_url=store_url, auth="tokens")
        with TestClient(create_app(settings), base_url="http://localhost") as client:
            yield client, store


def token(
    store: SqlStore, *scopes: Scope, project: str | None = None, days: int = 1
) -> dict[str, str]:
    _, secret = store.create_token(
        name="ada", scopes=scopes, project=project, lifetime=timedelta(days=days)
    )
    return {"Authorization": f"Bearer {secret}"}


def put(client: TestClient, manifest: Manifest, headers: dict[str, str]) -> int:
    body = manifest.model_dump_json(by_alias=True, exclude_unset=True)
    return client.put(f"/api/v1/runs/{manifest.id}", content=body, headers=headers).status_code


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer mft_wrong", "Bearer " + "x" * 9000, "mft_x"],
)
def test_nobody_comes_in_without(guarded: tuple[TestClient, SqlStore], authorization: str) -> None:
    answer = guarded[0].get("/api/v1/runs", headers={"Authorization": authorization})

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


def test_health_is_told_to_everybody(guarded: tuple[TestClient, SqlStore]) -> None:
    assert [guarded[0].get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]


def test_scopes_say_what_a_token_is_good_for(
    guarded: tuple[TestClient, SqlStore], make_manifest: MakeManifest
) -> None:
    client, store = guarded
    reader, writer, admin = (
        token(store, "read"),
        token(store, "write"),
        token(store, "read", "write", "admin"),
    )
    manifest = make_manifest()

    assert put(client, manifest, reader) == 403
    assert put(client, manifest, writer) == 200
    run = f"/api/v1/runs/{manifest.id}"
    assert client.get(run, headers=reader).status_code == 200
    assert client.delete(run, headers=writer).status_code == 403
    assert client.delete(run, headers=admin).status_code == 204
    assert client.get("/api/v1/tokens", headers=writer).status_code == 403


def remark(client: TestClient, manifest: Manifest, headers: dict[str, str]) -> int:
    """Say something of a run; gives the status."""
    said = {"note": "cats were here"}
    run = f"/api/v1/runs/{manifest.id}"
    unsaid = headers | {"If-Match": '"0"'}
    return client.put(f"{run}/annotations", json=said, headers=unsaid).status_code


def test_a_token_of_one_project_knows_of_no_other(
    guarded: tuple[TestClient, SqlStore], make_manifest: MakeManifest
) -> None:
    client, store = guarded
    everything = token(store, "write")
    cats = token(store, "read", "write", "admin", project="cats")
    mine, theirs = make_manifest(project="cats"), make_manifest(project="dogs")
    assert [put(client, each, everything) for each in (mine, theirs)] == [200, 200]

    assert put(client, make_manifest(project="dogs"), cats) == 403
    listed = client.get("/api/v1/runs", params={"project": "dogs"}, headers=cats).json()["runs"]
    assert [run["id"] for run in listed] == [mine.id]
    assert client.get("/api/v1/projects", headers=cats).json() == ["cats"]
    run = f"/api/v1/runs/{theirs.id}"
    pages = ("", "/sections/config", "/replays", "/verdict", "/annotations")
    assert {client.get(run + page, headers=cats).status_code for page in pages} == {404}
    assert [remark(client, each, cats) for each in (theirs, mine)] == [404, 200]
    assert store.get_annotations(theirs.id).note == ""
    assert client.delete(run, headers=cats).status_code == 404
    ids = {"a": mine.id, "b": theirs.id}
    assert client.get("/api/v1/diff", params=ids, headers=cats).status_code == 404
    facets = client.get("/api/v1/facets", params={"field": "project"}, headers=cats).json()
    assert facets[0]["values"] == [{"value": "cats", "runs": 1}]


def test_a_token_ends(guarded: tuple[TestClient, SqlStore]) -> None:
    client, store = guarded
    expired = token(store, "read", days=-1)
    good = token(store, "read")
    assert client.get("/api/v1/runs", headers=expired).status_code == 401
    assert client.get("/api/v1/runs", headers=good).status_code == 200

    store.revoke_token(store.list_tokens()[0].id)

    assert client.get("/api/v1/runs", headers=good).status_code == 401


def test_a_token_is_shown_once_and_never_kept(guarded: tuple[TestClient, SqlStore]) -> None:
    client, store = guarded
    admin = token(store, "admin")

    made = client.post(
        "/api/v1/tokens", json={"name": "cluster", "scopes": ["write"]}, headers=admin
    ).json()

    assert client.get(
        "/api/v1/runs", headers={"Authorization": f"Bearer {made['secret']}"}
    ).is_success
    listed = client.get("/api/v1/tokens", headers=admin)
    assert made["secret"] not in listed.text
    assert listed.json()[0]["last_used_at"] is not None
    (entry,) = client.get("/api/v1/audit", headers=admin).json()
    assert (entry["caller"], entry["action"], entry["subject"]) == (
        "ada",
        "create token",
        made["token"]["id"],
    )


def test_a_database_that_leaks_gives_no_token_away(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("leak") / "store.db"
    with open_store(sqlite_url(path)) as store:
        _, secret = store.create_token(name="ada", scopes=["read"])

    content = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"ada" in content
    assert secret.encode() not in content


def test_says_whose_a_token_is(guarded: tuple[TestClient, SqlStore]) -> None:
    client, store = guarded
    headers = token(store, "write", project="digits")

    answer = client.get("/api/v1/whoami", headers=headers)

    assert answer.json() == {"name": "ada", "scopes": ["write"], "project": "digits"}
    assert client.get("/api/v1/whoami").status_code == 401


def test_many_runs_at_once_stay_within_the_project_of_a_token(
    guarded: tuple[TestClient, SqlStore], make_manifest: MakeManifest
) -> None:
    client, store = guarded
    headers = token(store, "read", "write", project="a")
    own, other = make_manifest(project="a"), make_manifest(project="b")
    documents = [run.model_dump(by_alias=True, exclude_unset=True) for run in (own, other)]
    bodies = [{"manifest": document} for document in documents]

    both = client.post("/api/v1/runs", json={"runs": bodies}, headers=headers)
    assert (both.status_code, both.json()["code"]) == (403, "project-refused")
    assert client.post("/api/v1/runs", json={"runs": bodies[:1]}, headers=headers).is_success

    store.put_run(other)
    asked = {"ids": [own.id, other.id]}
    told = client.post("/api/v1/runs/digests", json=asked, headers=headers).json()
    assert told == {own.id: own.digest}
    params = {"prefix": own.id[:5]}
    found = client.get("/api/v1/runs", params=params, headers=headers).json()["runs"]
    assert [run["id"] for run in found] == [own.id]
