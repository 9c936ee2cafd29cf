"""The API's description, as OpenAPI: complete, so that clients can be made from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from importlib.resources import files
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel

from manifest_server.problems import PROBLEM_SCHEMA, ProblemDocument, documented

DESCRIPTION: Final = """\
Runs are kept under their own ids and never change once they are sealed, so every `PUT` may be
repeated. Every answer that is an error is a problem document (RFC 9457) whose `code` programs may
rely on. Bodies may be packed with gzip or zstd.

Where the service asks for tokens, send one as `Authorization: Bearer mft_…`. A token may read,
write or administer; one that is bound to a project sees no other.
"""

TAGS: Final = [
    {"name": "runs", "description": "Put, get and delete runs, and say something of them."},
    {"name": "trails", "description": "Fingerprints of runs, step by step; equal ones once."},
    {"name": "blobs", "description": "Files that manifests refer to, under their digests."},
    {"name": "compare", "description": "What changed between runs, and whether it can matter."},
    {"name": "search", "description": "Projects, fields, and how many runs have each value."},
    {"name": "tokens", "description": "Who may do what, and who did."},
    {"name": "health", "description": "For those who run the service."},
]

_OPEN: Final = ("/healthz", "/readyz", "/version")
_ANY_ANSWERS: Final = (400, 421, 500)
_GUARDED_ANSWERS: Final = (401, 403, 422, 429, 503)
_BODY_ANSWERS: Final = (408, 413, 415)


def examples(model: str) -> dict[str, Any]:
    """An example of a model, as the content of a body or an answer names it."""
    return {"examples": {"real": {"$ref": f"#/components/examples/{model}"}}}


def body(model: str) -> dict[str, Any]:
    """Describe a body that an endpoint reads by itself, by the name of a model."""
    content = {"schema": {"$ref": f"#/components/schemas/{model}"}, **examples(model)}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def bytes_body() -> dict[str, Any]:
    """Describe a body that is no JSON."""
    content = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"required": True, "content": {"application/octet-stream": content}}}


def operation_id(route: APIRoute) -> str:
    """The name of an operation: that of its function, which clients call it by."""
    return route.name


def describe(app: FastAPI, bodies: Iterable[type[BaseModel]]) -> None:
    """Have an application describe itself so.

    Args:
        app: The application, with all its routes.
        bodies: Models of bodies that endpoints read by themselves, and no answer has.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(
                get_openapi(
                    title=app.title,
                    version=app.version,
                    summary=app.summary,
                    description=DESCRIPTION,
                    tags=TAGS,
                    routes=app.routes,
                ),
                bodies,
            )
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # as FastAPI's documentation does


def _completed(document: dict[str, Any], bodies: Iterable[type[BaseModel]]) -> dict[str, Any]:
    components = document["components"]
    for model in bodies:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        components["schemas"] = schema.pop("$defs", {}) | components["schemas"]
        components["schemas"][model.__name__] = schema
    components["schemas"][PROBLEM_SCHEMA] = ProblemDocument.model_json_schema()
    components["schemas"].pop("HTTPValidationError", None)
    components["schemas"].pop("ValidationError", None)
    components["examples"] = {model: {"value": value} for model, value in _examples().items()}
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, operation in _operations(document):
        added: tuple[int, ...] = _ANY_ANSWERS
        if path not in _OPEN:
            operation["security"] = [{}, {"token": []}]
            added += _GUARDED_ANSWERS
        if "requestBody" in operation:
            added += _BODY_ANSWERS
        known = operation["responses"]
        all_answers = {str(key): value for key, value in documented(*added).items()} | known
        operation["responses"] = dict(sorted(all_answers.items()))
    return document


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            yield path, operation


def _examples() -> dict[str, Any]:
    path = files("manifest_server.api") / "manifest.json"
    run = json.loads(path.read_text(encoding="utf-8"))
    return {
        "Manifest": run,
        "NewRuns": {"runs": [{"manifest": run}]},
        "Verdict": {
            "outcome": "identical",
            "original": "01990000-0000-7000-8000-000000000001",
            "replay": "01990000-0000-7000-8000-000000000002",
            "sentence": "Equal in all 3 steps.",
        },
        "Annotations": {
            "tags": {"stage": "candidate"},
            "note": "The first that beats the baseline.",
        },
    }
