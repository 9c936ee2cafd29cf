"""Tags and notes change over HTTP, one client after another."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from manifest.models import Manifest

MakeManifest = Callable[..., Manifest]


@pytest.fixture
def address(client: TestClient, make_manifest: MakeManifest) -> str:
    manifest = make_manifest()
    body = manifest.model_dump_json(by_alias=True, exclude_unset=True)
    assert client.put(f"/api/v1/runs/{manifest.id}", content=body).status_code == 200
    return f"/api/v1/runs/{manifest.id}/annotations"


def test_change_with_the_etag_that_was_read(client: TestClient, address: str) -> None:
    etag = client.get(address).headers["etag"]

    answer = client.put(address, json={"tags": {"team": "nlp"}}, headers={"If-Match": etag})

    assert (answer.status_code, answer.headers["etag"]) == (200, '"1"')
    assert client.get(address).json()["tags"] == {"team": "nlp"}


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 428, "if-match-missing"),
        ({"If-Match": '"7"'}, 412, "annotations-changed"),
        ({"If-Match": "*"}, 412, "annotations-changed"),
        ({"If-Match": '"' + "9" * 5000 + '"'}, 412, "annotations-changed"),
    ],
)
def test_are_not_changed_unseen(
    client: TestClient, address: str, headers: dict[str, str], status: int, code: str
) -> None:
    answer = client.put(address, json={"note": "mine"}, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert client.get(address).json()["note"] == ""


def test_refuse_what_does_not_fit(client: TestClient, address: str) -> None:
    answer = client.put(address, json={"tags": {"": "x"}}, headers={"If-Match": '"0"'})

    assert (answer.status_code, answer.json()["code"]) == (422, "annotations-invalid")
