"""Blobs are put and got over HTTP, and only by those who may."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from manifest.canonical import digest_bytes, digest_value
from manifest.models import Manifest
from manifest_server.app import create_app
from manifest_server.settings import ServerSettings
from manifest_server.sqlstore import SqlStore

MakeManifest = Callable[..., Manifest]

PAGE = b"<script>alert(1)</script>" * 100_000
DIGEST = digest_bytes(PAGE)
ADDRESS = f"/api/v1/blobs/{DIGEST}"


@pytest.fixture(params=["database", "folder", "s3"])
def blob_client(
    request: pytest.FixtureRequest, tmp_path: Path, sqlite_store_url: str
) -> Iterator[TestClient]:
    """A client of a service that keeps blobs in each kind of place, in turn."""
    places: dict[str, str | None] = {"blob_url": None}
    if request.param == "folder":
        places = {"blob_url": (tmp_path / "blobs").as_uri()}
    elif request.param == "s3":
        request.getfixturevalue("s3_account")
        endpoint = request.getfixturevalue("s3_endpoint")
        places = {"blob_url": "s3://service/blobs", "blob_endpoint": endpoint}
    app = create_app(ServerSettings.model_validate({"database_url": sqlite_store_url, **places}))
    with TestClient(app, base_url="http://localhost") as opened:
        yield opened


def put_run(client: TestClient, manifest: Manifest, **options: object) -> None:
    body = manifest.model_dump_json(by_alias=True, exclude_unset=True)
    answer = client.put(f"/api/v1/runs/{manifest.id}", content=body)
    assert answer.status_code == 200, answer.text


def test_gives_back_what_was_put_as_a_file_that_never_changes(blob_client: TestClient) -> None:
    assert blob_client.head(ADDRESS).status_code == 404
    assert [blob_client.put(ADDRESS, content=PAGE).status_code for _ in range(2)] == [204, 204]

    answer = blob_client.get(ADDRESS)
    assert answer.content == PAGE
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment; filename=")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "immutable" in answer.headers["cache-control"]
    head = blob_client.head(ADDRESS)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == answer.headers["content-length"] == str(len(PAGE))
    again = blob_client.get(ADDRESS, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_refuses_bytes_that_are_not_what_they_are_called(client: TestClient) -> None:
    answer = client.put(ADDRESS, content=PAGE + b" ")

    assert (answer.status_code, answer.json()["code"]) == (409, "digest-mismatch")
    missing = client.get(ADDRESS)
    assert (missing.status_code, missing.json()["code"]) == (404, "blob-not-found")


@pytest.mark.parametrize("name", ["sha256:abc", "sha256:" + "A" * 64, "md5:" + "a" * 64])
def test_refuses_what_is_no_digest(client: TestClient, name: str) -> None:
    for answer in (client.put(f"/api/v1/blobs/{name}"), client.get(f"/api/v1/blobs/{name}")):
        assert (answer.status_code, answer.json()["code"]) == (422, "input-invalid")


def test_stops_reading_what_is_too_large(store_url: str) -> None:
    app = create_app(ServerSettings(database_url=store_url, most_blob_bytes=1000))
    with TestClient(app, base_url="http://localhost") as client:
        answer = client.put(ADDRESS, content=iter([bytes(600), bytes(600)]))
    assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")


def test_says_what_is_lacking(client: TestClient, make_manifest: MakeManifest) -> None:
    kept = make_manifest(sections={"packages": {"torch": "2.13.0"}, "config": {"lr": 1}})
    put_run(client, kept)
    client.put(ADDRESS, content=PAGE)
    other = digest_bytes(b"other")
    named = {
        "sections": {
            "packages": kept.digests["packages"],
            "code": other,
            "config": kept.digests["config"],
        },
        "blobs": [other, DIGEST, other],
        "segments": ["0" * 32],
    }

    answer = client.post("/api/v1/lacking", json=named)

    assert answer.json() == {
        "sections": {"code": other, "config": kept.digests["config"]},
        "blobs": [other],
        "segments": ["0" * 32],
    }
    assert client.post("/api/v1/lacking", json={"blobs": ["x"]}).status_code == 422
    assert client.post("/api/v1/lacking", json={"else": []}).status_code == 422


def left_out(manifest: Manifest, *names: str) -> dict[str, object]:
    document = manifest.model_dump(mode="json", by_alias=True, exclude_unset=True)
    for name in names:
        del document["sections"][name]
    return document


def test_puts_sections_back_that_were_left_out(
    client: TestClient, make_manifest: MakeManifest
) -> None:
    put_run(client, make_manifest())
    other = make_manifest(name="other")

    answer = client.put(f"/api/v1/runs/{other.id}", json=left_out(other, "packages", "settings"))

    assert answer.json() == {"id": other.id, "digest": other.digest}
    kept = client.get(f"/api/v1/runs/{other.id}")
    assert Manifest.model_validate_json(kept.content) == other


def test_says_which_sections_it_lacks(client: TestClient, make_manifest: MakeManifest) -> None:
    put_run(client, make_manifest())
    volatile = {"env.HOSTNAME": "node-1", "env.CUDA_VISIBLE_DEVICES": "0"}
    other = make_manifest(sections={"config": {"lr": 1}, "environment": volatile})
    put_run(client, make_manifest(sections={"config": {"lr": 1}, "environment": volatile}))
    body = left_out(other, "config", "environment", "packages")

    answer = client.put(f"/api/v1/runs/{other.id}", json=body)

    assert (answer.status_code, answer.json()["code"]) == (409, "sections-lacking")
    assert answer.json()["errors"] == [{"section": "config"}, {"section": "environment"}]
    put_run(client, other)


def test_refuses_a_manifest_that_its_digest_does_not_name(
    client: TestClient, make_manifest: MakeManifest
) -> None:
    put_run(client, make_manifest())
    other = make_manifest()
    wrong = digest_value({"another": "manifest"})

    for body in (left_out(other), left_out(other, "packages")):
        answer = client.put(f"/api/v1/runs/{other.id}", json=body | {"digest": wrong})
        assert (answer.status_code, answer.json()["code"]) == (422, "digest-wrong")
        answer = client.put(f"/api/v1/runs/{other.id}", json=body | {"project": "stolen"})
        assert (answer.status_code, answer.json()["code"]) == (422, "digest-wrong")
    forged = left_out(other, "packages")
    forged["digests"] = {**other.digests, "packages": "sha256:nothing"}
    answer = client.put(f"/api/v1/runs/{other.id}", json=forged)
    assert (answer.status_code, answer.json()["code"]) == (422, "manifest-invalid")


@pytest.fixture
def callers(store_url: str) -> Iterator[Callable[[str], TestClient]]:
    """Clients of a service that asks for tokens, each bound to a project."""
    with SqlStore.open(store_url) as store:
        tokens = {
            project: store.create_token(name=project, scopes=["write"], project=project)[1]
            for project in ("digits", "theirs")
        }
        tokens["reader"] = store.create_token(name="reader", scopes=["read"])[1]
    app = create_app(ServerSettings(database_url=store_url, auth="tokens"))
    with TestClient(app, base_url="http://localhost") as opened:

        def caller(name: str) -> TestClient:
            opened.headers["Authorization"] = f"Bearer {tokens[name]}"
            return opened

        yield caller


def test_shows_a_project_nothing_of_another(
    callers: Callable[[str], TestClient], make_manifest: MakeManifest
) -> None:
    theirs = make_manifest(project="theirs", sections={"code": {"files": {"a.py": DIGEST}}})
    callers("theirs").put(ADDRESS, content=PAGE)
    put_run(callers("theirs"), theirs)

    assert callers("theirs").get(ADDRESS).status_code == 200
    assert callers("reader").get(ADDRESS).status_code == 200
    for answer in (callers("digits").get(ADDRESS), callers("digits").head(ADDRESS)):
        assert answer.status_code == 404
    named = {"blobs": [DIGEST], "sections": {"code": theirs.digests["code"]}}
    lacking = callers("digits").post("/api/v1/lacking", json=named).json()
    assert lacking == {**named, "segments": []}
    known = callers("theirs").post("/api/v1/lacking", json=named).json()
    assert known == {"blobs": [], "sections": {}, "segments": []}
    mine = make_manifest(sections={"code": {"files": {"a.py": DIGEST}}})
    answer = callers("digits").put(f"/api/v1/runs/{mine.id}", json=left_out(mine, "code"))
    assert answer.json()["code"] == "sections-lacking"


def test_lets_only_writers_put(callers: Callable[[str], TestClient]) -> None:
    answer = callers("reader").put(ADDRESS, content=PAGE)
    assert (answer.status_code, answer.json()["code"]) == (403, "scope-lacking")
    assert callers("reader").post("/api/v1/lacking", json={}).status_code == 403
