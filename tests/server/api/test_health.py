"""Those who run the service learn how it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from manifest.models import Manifest
from manifest_server.sqlstore import SqlStore

MakeManifest = Callable[..., Manifest]
Start = Callable[..., tuple[TestClient, SqlStore]]


def test_counts_requests_runs_and_problems(
    simple_client: TestClient, make_manifest: MakeManifest
) -> None:
    manifest = make_manifest()
    body = manifest.model_dump_json(by_alias=True, exclude_unset=True)
    simple_client.put(f"/api/v1/runs/{manifest.id}", content=body)
    simple_client.get("/api/v1/runs/nothing")
    simple_client.get("/nowhere/mft_secret")
    simple_client.request("BREW", "/nowhere")

    text = simple_client.get("/metrics").text

    assert 'manifest_requests_total{operation="put_run",status="200"} 1.0' in text
    assert 'manifest_request_seconds_count{operation="get_run"} 1.0' in text
    assert "manifest_runs_put_total 1.0" in text
    assert 'manifest_problems_total{code="input-invalid"} 1.0' in text
    assert 'manifest_requests_total{operation="other",status="404"} 2.0' in text
    assert "mft_secret" not in text
    assert manifest.id not in text


def test_counters_are_for_those_who_have_a_token(limited: Start) -> None:
    client, store = limited(auth="tokens")
    _, secret = store.create_token(name="prometheus", scopes=["read"])

    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers={"Authorization": f"Bearer {secret}"}).is_success


def test_a_caller_that_asks_too_much_waits(limited: Start) -> None:
    client, store = limited(auth="tokens", requests_per_second=0.5)
    first, second = (
        {"Authorization": f"Bearer {store.create_token(name='a', scopes=['read'])[1]}"}
        for _ in range(2)
    )
    codes = [client.get("/api/v1/projects", headers=first).status_code for _ in range(3)]
    assert codes == [200, 200, 429]
    refused = client.get("/api/v1/projects", headers=first)
    assert (refused.json()["code"], refused.headers["retry-after"]) == ("too-many-requests", "2")
    assert client.get("/api/v1/projects", headers=second).status_code == 200
    assert client.get("/healthz").status_code == 200


def test_whoever_guesses_tokens_waits_too(limited: Start) -> None:
    client, _ = limited(auth="tokens", requests_per_second=0.5)
    answers = [
        client.get("/api/v1/projects", headers={"Authorization": f"Bearer mft_{number}"})
        for number in range(4)
    ]
    assert [answer.status_code for answer in answers] == [401, 401, 429, 429]


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_large_answers_are_packed(simple_client: TestClient, encoding: str) -> None:
    path = "/api/v1/openapi.json"
    plain = simple_client.get(path, headers={"Accept-Encoding": "identity"})
    packed = simple_client.get(path, headers={"Accept-Encoding": encoding})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == encoding
    assert int(packed.headers["content-length"]) < len(plain.content) / 4
    assert packed.headers["vary"] == "Accept-Encoding"


def test_a_manifest_goes_in_packed_and_counts_unpacked(
    limited: Start, make_manifest: MakeManifest
) -> None:
    import gzip

    client, _ = limited(most_manifest_bytes=20_000)
    manifest = make_manifest()
    body = manifest.model_dump_json(by_alias=True, exclude_unset=True).encode()
    headers = {"Content-Encoding": "gzip"}
    run = f"/api/v1/runs/{manifest.id}"
    assert client.put(run, content=gzip.compress(body), headers=headers).status_code == 200
    bomb = gzip.compress(body[:-1] + b" " * 20_000 + b"}")
    refused = client.put(run, content=bomb, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (413, "body-too-large")
    assert client.get(run).json()["id"] == manifest.id
