"""Runs, fields, facets and differences are found over HTTP."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from manifest.models import Manifest

MakeManifest = Callable[..., Manifest]


@pytest.fixture
def runs(client: TestClient, make_manifest: MakeManifest) -> list[Manifest]:
    manifests = [
        make_manifest(project=project, sections={"config": {"lr": lr}})
        for project, lr in (("cats", 0.1), ("cats", 0.2), ("dogs", 0.2))
    ]
    for manifest in manifests:
        body = manifest.model_dump_json(by_alias=True, exclude_unset=True)
        assert client.put(f"/api/v1/runs/{manifest.id}", content=body).status_code == 200
    return manifests


def test_a_filter_chooses(client: TestClient, runs: list[Manifest]) -> None:
    answer = client.get("/api/v1/runs", params={"filter": "config.lr > 0.1", "project": "cats"})

    assert [run["id"] for run in answer.json()["runs"]] == [runs[1].id]


def test_a_filter_that_cannot_be_read_is_refused_with_the_place(client: TestClient) -> None:
    answer = client.get("/api/v1/runs", params={"filter": "config.lr >"})

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "filter-invalid")
    assert problem["errors"][0]["position"] == 11


def test_facets_count(client: TestClient, runs: list[Manifest]) -> None:
    answer = client.get("/api/v1/facets", params={"field": ["config.lr", "project"]})

    assert answer.json() == [
        {"field": "config.lr", "values": [{"value": 0.2, "runs": 2}, {"value": 0.1, "runs": 1}]},
        {
            "field": "project",
            "values": [{"value": "cats", "runs": 2}, {"value": "dogs", "runs": 1}],
        },
    ]


def test_fields_and_projects_are_named(client: TestClient, runs: list[Manifest]) -> None:
    assert client.get("/api/v1/fields", params={"prefix": "config"}).json() == ["config.lr"]
    assert client.get("/api/v1/projects").json() == ["cats", "dogs"]


def test_two_runs_are_compared(client: TestClient, runs: list[Manifest]) -> None:
    ids = {"a": runs[0].id, "b": runs[1].id}

    (difference,) = client.get("/api/v1/diff", params=ids).json()["differences"]

    assert (difference["key"], difference["before"], difference["after"]) == ("lr", 0.1, 0.2)
    nothing = client.get("/api/v1/diff", params={**ids, "impact": "performance"}).json()
    assert nothing["differences"] == []


def test_several_runs_are_compared(client: TestClient, runs: list[Manifest]) -> None:
    answer = client.post("/api/v1/diff", json={"ids": [run.id for run in runs]})

    values = {row["key"]: row["values"] for row in answer.json()}
    assert values["lr"] == [0.1, 0.2, 0.2]


def test_a_cursor_that_is_none_is_refused(client: TestClient) -> None:
    answer = client.get("/api/v1/runs", params={"cursor": "' or 1=1"})

    assert (answer.status_code, answer.json()["code"]) == (422, "cursor-invalid")
