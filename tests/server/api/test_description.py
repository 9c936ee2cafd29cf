"""The API's description is complete, true, and changes only on purpose."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from manifest_server.app import create_app
from manifest_server.settings import ServerSettings

GOLDEN = Path(__file__).with_name("golden") / "openapi.json"
REAL = "tests/manifest/golden/schema-1/01990000-0000-7000-8000-000000000001/manifest.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(ServerSettings()).openapi()


@pytest.fixture(scope="module")
def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_it_is_what_clients_were_made_from(document: dict[str, Any]) -> None:
    # A change that is meant: REWRITE_GOLDEN=1 pytest tests/server/api/test_description.py
    told = {**document, "info": {**document["info"], "version": "*"}}
    if os.environ.get("REWRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert told == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_every_operation_is_described(operations: dict[str, dict[str, Any]]) -> None:
    assert len({each["operationId"] for each in operations.values()}) == len(operations)
    bare = [name for name, each in operations.items() if not each.get("description")]
    assert bare == []
    assert [name for name, each in operations.items() if not each.get("tags")] == []


def test_every_error_is_a_problem_document(operations: dict[str, dict[str, Any]]) -> None:
    problem = {"$ref": "#/components/schemas/ProblemDocument"}
    for name, operation in operations.items():
        errors = {key: each for key, each in operation["responses"].items() if key >= "400"}
        assert "500" in errors, name
        for each in errors.values():
            assert each["content"] == {"application/problem+json": {"schema": problem}}, name


def test_every_body_is_described(operations: dict[str, dict[str, Any]]) -> None:
    bodies = {name for name, each in operations.items() if "requestBody" in each}
    assert bodies == {name for name in operations if name.startswith(("put", "post"))}


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    for kind in ("schemas", "examples"):
        names = {part.partition('"')[0] for part in text.split(f"#/components/{kind}/")[1:]}
        assert names <= set(document["components"][kind])


def test_examples_are_real_and_accepted(
    simple_client: TestClient, document: dict[str, Any], checkout: Path
) -> None:
    shown = {name: each["value"] for name, each in document["components"]["examples"].items()}
    manifest = shown["Manifest"]
    assert manifest == json.loads((checkout / REAL).read_text(encoding="utf-8"))
    run = f"/api/v1/runs/{manifest['id']}"
    assert simple_client.put(run, json=manifest).status_code == 200
    assert simple_client.get(run).json() == manifest
    assert simple_client.post("/api/v1/runs", json=shown["NewRuns"]).status_code == 200
    verdict = shown["Verdict"]
    assert simple_client.put(f"{run}/verdict", json=verdict).status_code == 204
    said = shown["Annotations"]
    headers = {"If-Match": simple_client.get(f"{run}/annotations").headers["etag"]}
    assert simple_client.put(f"{run}/annotations", json=said, headers=headers).status_code == 200
