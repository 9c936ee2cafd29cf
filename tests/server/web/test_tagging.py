"""Tags and note are changed in a form, never over somebody else's words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.testclient import TestClient

from manifest.models import Manifest
from manifest_server.sqlstore import SqlStore

PutRun = Callable[..., Manifest]
MakeManifest = Callable[..., Manifest]


@pytest.fixture
def address(put_run: PutRun) -> str:
    return f"/runs/{put_run().id}"


def form(*, version: int = 0, **fields: Any) -> dict[str, Any]:
    return {"version": str(version), "name": ["team", ""], "value": ["nlp", ""], **fields}


def test_are_kept_and_shown(client: TestClient, address: str) -> None:
    evil = "<script>alert(1)</script>\r\n</textarea>two"

    answer = client.post(f"{address}/annotations", data=form(note=evil), follow_redirects=False)

    assert (answer.status_code, answer.headers["location"]) == (303, f"{address}#said")
    said = client.get(f"/api/v1{address}/annotations").json()
    assert (said["tags"], said["note"]) == ({"team": "nlp"}, evil.replace("\r\n", "\n"))
    page = client.get(address).text
    assert page.count("<script") == 1
    assert page.count("</textarea>") == 1
    fitting = urlencode({"filter": 'tags.team = "nlp"'})
    assert f'href="/?{fitting}"' in page


def test_can_be_taken_away(client: TestClient, address: str) -> None:
    client.post(f"{address}/annotations", data=form(note="x"))
    client.post(f"{address}/annotations", data=form(version=1, name=[""], value=[""], note=""))

    said = client.get(f"/api/v1{address}/annotations").json()
    assert (said["version"], said["tags"], said["note"]) == (2, {}, "")


def test_of_someone_else_are_shown_beside_ones_own(client: TestClient, address: str) -> None:
    client.post(f"{address}/annotations", data=form(note="theirs"))

    answer = client.post(f"{address}/annotations", data=form(note="mine", value=["vision", ""]))

    assert answer.status_code == 412
    assert "theirs" in answer.text
    assert "mine" in answer.text
    assert 'value="vision"' in answer.text
    assert 'name="version" value="1"' in answer.text
    assert client.get(f"/api/v1{address}/annotations").json()["note"] == "theirs"


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"value": ["", ""]}, "one of the two is missing"),
        ({"name": ["a", "a"], "value": ["1", "2"]}, "same name"),
        ({"value": ["x" * 201, ""]}, "at most 200"),
        ({"note": "x" * 20_001}, "at most 20000"),
        ({"name": [str(n) for n in range(150)], "value": ["1"] * 150}, "at most 100"),
    ],
)
def test_what_does_not_fit_is_given_back(
    client: TestClient, address: str, fields: dict[str, Any], fault: str
) -> None:
    answer = client.post(f"{address}/annotations", data=form(**fields))

    assert answer.status_code == 422
    assert fault in answer.text
    assert "<textarea" in answer.text
    assert client.get(f"/api/v1{address}/annotations").json()["version"] == 0


@pytest.mark.parametrize("version", ["-1", "x", "", "9" * 40])
def test_a_version_that_is_none_is_refused(client: TestClient, address: str, version: str) -> None:
    answer = client.post(f"{address}/annotations", data={"version": version})

    assert answer.status_code == 422


def test_are_changed_from_our_own_pages_alone(client: TestClient, address: str) -> None:
    answer = client.post(
        f"{address}/annotations", data=form(), headers={"origin": "https://evil.example"}
    )

    assert answer.status_code == 403
    assert client.get(f"/api/v1{address}/annotations").json()["version"] == 0


def test_of_no_run(client: TestClient) -> None:
    missing = "/runs/01990000-0000-7000-8000-000000000001/annotations"

    assert client.post(missing, data=form()).status_code == 404


def test_whoever_writes_into_one_project_changes_no_other(
    limited: Callable[..., tuple[TestClient, SqlStore]], make_manifest: MakeManifest
) -> None:
    client, store = limited(auth="tokens")
    own, other = (make_manifest(project=name) for name in ("own", "other"))
    store.put_runs([(own, None), (other, None)])
    _, secret = store.create_token(name="ada", scopes=["write"], project="own")
    client.cookies.set("manifest_token", secret)

    assert client.post(f"/runs/{other.id}/annotations", data=form()).status_code == 404
    assert client.post(f"/runs/{own.id}/annotations", data=form()).status_code == 200
    assert store.get_annotations(other.id).version == 0
    assert store.get_annotations(own.id).updated_by == "ada"
    assert [(each.action, each.subject) for each in store.list_audit_entries()] == [
        ("annotate run", own.id)
    ]
