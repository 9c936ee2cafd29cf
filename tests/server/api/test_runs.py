"""Runs are put, listed and got over HTTP."""

from __future__ import annotations

from collections.abc import Callable

from starlette.testclient import TestClient

from manifest.models import Manifest

MakeManifest = Callable[..., Manifest]


def put(client: TestClient, manifest: Manifest) -> int:
    body = manifest.model_dump_json(by_alias=True, exclude_unset=True)
    return client.put(f"/api/v1/runs/{manifest.id}", content=body).status_code


def test_gives_back_the_manifest_that_was_put(
    client: TestClient, make_manifest: MakeManifest
) -> None:
    manifest = make_manifest()

    assert put(client, manifest) == 200

    answer = client.get(f"/api/v1/runs/{manifest.id}")
    assert Manifest.model_validate_json(answer.content) == manifest


def test_takes_the_same_run_any_number_of_times(
    client: TestClient, make_manifest: MakeManifest
) -> None:
    manifest = make_manifest()

    assert [put(client, manifest) for _ in range(3)] == [200, 200, 200]
    assert len(client.get("/api/v1/runs").json()["runs"]) == 1


def test_pages_through_runs_the_newest_first(
    client: TestClient, make_manifest: MakeManifest
) -> None:
    ids = [manifest.id for manifest in (make_manifest() for _ in range(5)) if put(client, manifest)]

    first = client.get("/api/v1/runs", params={"limit": 3}).json()
    rest = client.get("/api/v1/runs", params={"limit": 3, "cursor": first["next_cursor"]}).json()

    assert [run["id"] for run in first["runs"] + rest["runs"]] == sorted(ids, reverse=True)
    assert rest["next_cursor"] is None


def test_refuses_what_is_no_manifest_with_each_fault(client: TestClient) -> None:
    answer = client.put("/api/v1/runs/01990000-0000-7000-8000-000000000001", content='{"id": 5}')

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "manifest-invalid"
    assert {"place": "id", "expected": "Input should be a valid string"} in problem["errors"]


def test_says_that_a_run_is_not_there(client: TestClient) -> None:
    answer = client.get("/api/v1/runs/01990000-0000-7000-8000-000000000001")

    assert (answer.status_code, answer.json()["code"]) == (404, "run-not-found")


def test_keeps_many_runs_together_or_none(client: TestClient, make_manifest: MakeManifest) -> None:
    runs = [make_manifest() for _ in range(3)]
    documents = [run.model_dump(by_alias=True, exclude_unset=True) for run in runs]

    answer = client.post("/api/v1/runs", json={"runs": [{"manifest": each} for each in documents]})

    kept = [{"id": run.id, "digest": run.digest} for run in runs]
    assert (answer.status_code, answer.json()) == (200, kept)
    other = make_manifest(id=runs[0].id, project="other")
    together = [make_manifest(), other]
    documents = [run.model_dump(by_alias=True, exclude_unset=True) for run in together]
    answer = client.post("/api/v1/runs", json={"runs": [{"manifest": each} for each in documents]})
    assert (answer.status_code, answer.json()["code"]) == (409, "digest-mismatch")
    assert len(client.get("/api/v1/runs").json()["runs"]) == 3


def test_says_which_digests_are_kept(client: TestClient, make_manifest: MakeManifest) -> None:
    sealed, running = make_manifest(), make_manifest(is_sealed=False)
    put(client, sealed)
    put(client, running)

    asked = {"ids": [sealed.id, running.id, make_manifest().id, "none"]}

    answer = client.post("/api/v1/runs/digests", json=asked)
    assert answer.json() == {sealed.id: sealed.digest, running.id: ""}


def test_finds_runs_by_the_start_of_their_id(
    client: TestClient, make_manifest: MakeManifest
) -> None:
    put(client, make_manifest(id="0190f3a2-7c41-7abc-8def-0123456789ab", project="a"))
    put(client, make_manifest(id="0190f3a2-7c42-7abc-8def-0123456789ab", project="b"))

    def found(**params: str) -> list[str]:
        return [run["id"][:13] for run in client.get("/api/v1/runs", params=params).json()["runs"]]

    assert found(prefix="0190f3a27c41") == ["0190f3a2-7c41"]
    assert found(prefix="0190f3a2") == ["0190f3a2-7c42", "0190f3a2-7c41"]
    assert found(prefix="0190f3a2", project="a") == ["0190f3a2-7c41"]
    assert found(prefix="0190x") == []
