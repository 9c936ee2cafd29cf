"""What goes wrong with a request, as a problem document that programs and people can read.

Every answer of an error has this form (RFC 9457), with a `code` that never changes. Errors of the
core know no HTTP: the table here gives each its status.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from manifest import errors
from manifest_server.logs import EVENT

MEDIA_TYPE: Final = "application/problem+json"
PROBLEM_SCHEMA: Final = "ProblemDocument"
"""The name of its schema in the API's description."""

STATUSES: Final[Mapping[type[errors.ManifestError], int]] = {
    errors.ManifestError: 500,
    errors.RunNotFound: 404,
    errors.AmbiguousReference: 409,
    errors.NewerSchema: 422,
    errors.DamagedRun: 422,
    errors.DigestMismatch: 409,
    errors.StateNotRestorable: 422,
    errors.ArgumentInvalid: 400,
    errors.NotAgreed: 403,
    errors.UnknownChange: 422,
    errors.NotReplayable: 422,
    errors.NotRecordable: 500,
    errors.StoreUnusable: 503,
    errors.FilterInvalid: 422,
    errors.AnnotationsChanged: 412,
    errors.TokenNotFound: 404,
    errors.DigestWrong: 422,
    errors.BlobNotFound: 404,
    errors.SectionsLacking: 409,
    errors.SegmentsLacking: 409,
    errors.TrailNotFound: 404,
    errors.TrailInvalid: 422,
    errors.TrailDiffers: 409,
    errors.TrailGap: 409,
    errors.SettingsInvalid: 500,
    errors.GoldenInvalid: 422,
}
"""The status of each error of the core; a test walks the tree, so that none is forgotten."""


class ProblemDocument(BaseModel):
    """The body of every answer that is an error."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Not Found",
                    "status": 404,
                    "code": "run-not-found",
                    "detail": "no run '01990000' in the service.",
                }
            ]
        }
    )

    type: str = "about:blank"
    title: str = Field(description="What the status means.")
    status: int = Field(description="The HTTP status, again.")
    code: str = Field(description="What went wrong, for programs; it never changes.")
    detail: str = Field(description="What was expected, what was found, and what to do.")
    errors: list[dict[str, Any]] = Field(
        default_factory=list, description="Each fault of the input, with its place."
    )


class Problem(HTTPException):
    """An answer that is an error, raised anywhere in a request.

    A child of Starlette's error, so that whoever reads a body lets it through.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        faults: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.code = code
        self.faults = faults or []


def answer(problem: Problem, scope: Scope) -> Response:
    """A problem as a response; the log and the counters of the request learn its code."""
    scope.setdefault("state", {})["problem"] = problem.code
    document = ProblemDocument(
        title=_TITLES.get(problem.status_code, "Error"),
        status=problem.status_code,
        code=problem.code,
        detail=problem.detail,
        errors=problem.faults,
    )
    said = document.model_dump(exclude_defaults=not problem.faults) | _ALWAYS
    return Response(
        json.dumps(said),  # in ASCII: what is quoted may be no text that UTF-8 knows
        status_code=problem.status_code,
        media_type=MEDIA_TYPE,
        headers=problem.headers,
    )


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Say in the API's description which errors a route may answer with."""
    content = {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{PROBLEM_SCHEMA}"}}}
    return {status: {"description": _TITLES[status], "content": content} for status in statuses}


def faults_of(error: ValidationError) -> list[dict[str, Any]]:
    """What does not fit, each with its place; never the input itself, which may be secret."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return [
        {"place": ".".join(map(str, each["loc"])), "expected": each["msg"]}
        for each in found[:_MOST_FAULTS]
    ]


def add_problems(app: FastAPI) -> None:
    """Have an application answer every error with a problem document."""
    app.add_exception_handler(Problem, _of_problem)
    app.add_exception_handler(errors.ManifestError, _of_core)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_http)


def code_of(error: type[errors.ManifestError]) -> str:
    """The code of an error of the core: its name in lower case, with dashes."""
    name = error.__name__
    return "".join(f"-{char.lower()}" if char.isupper() else char for char in name).lstrip("-")


_LOG = logging.getLogger("manifest_server")
_MOST_FAULTS: Final = 20

_ALWAYS: Final = {"type": "about:blank"}

_TITLES: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    408: "Request Timeout",
    409: "Conflict",
    411: "Length Required",
    412: "Precondition Failed",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    421: "Misdirected Request",
    422: "Unprocessable Content",
    428: "Precondition Required",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


async def _of_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101 -- as it was added
    return answer(error, request.scope)


async def _of_core(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.ManifestError)  # noqa: S101 -- as it was added
    status = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    faults: list[dict[str, Any]] = []
    match error:
        case errors.FilterInvalid():
            faults = [{"position": error.position, "expected": error.expected}]
        case errors.SectionsLacking():
            faults = [{"section": name} for name in error.names]
        case errors.SegmentsLacking():
            faults = [{"segment": key} for key in error.keys]
        case errors.TrailGap():
            faults = [{"start": error.kept}]
    if status < 500:
        # Where the database is concerns nobody who asks from afar.
        detail = str(error).replace(request.app.state.store.location, "the service")
    else:
        _LOG.error(
            "%s", error, extra={EVENT: {"request_id": getattr(request.state, "request_id", None)}}
        )
        detail = "the service cannot do this now; its log says more under this request's id"
    problem = Problem(status, code_of(type(error)), detail, faults=faults)
    return answer(problem, request.scope)


async def _of_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 -- as it was added
    faults = [
        {"place": ".".join(map(str, each["loc"])), "expected": each["msg"]}
        for each in error.errors()[:_MOST_FAULTS]
    ]
    said = "; ".join(f"{fault['place']}: {fault['expected']}" for fault in faults[:3])
    detail = f"the request does not fit: {said}"
    return answer(Problem(422, "input-invalid", detail, faults=faults), request.scope)


async def _of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 -- as it was added
    title = _TITLES.get(error.status_code, "error")
    code = title.lower().replace(" ", "-")
    problem = Problem(error.status_code, code, str(error.detail), headers=error.headers)
    return answer(problem, request.scope)
