"""Runs: put, list, get."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, Field, ValidationError

from manifest.models import Manifest, RunSummary
from manifest_server.dependencies import Body, Reader, Store, Writer
from manifest_server.problems import Problem, ProblemDocument

router = APIRouter(
    prefix="/runs",
    tags=["runs"],
    responses={status: {"model": ProblemDocument} for status in (401, 403, 404, 409, 422)},
)

RunId = Annotated[str, Path(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]


class RunPage(BaseModel):
    """Some runs, the newest first."""

    runs: list[RunSummary]
    next_cursor: str | None = Field(description="Give it as `cursor` for the runs that follow.")


class Kept(BaseModel):
    """What is kept now."""

    id: str
    digest: str = Field(description="Of the manifest; empty while the run goes on.")


@router.put("/{run_id}")
def put_run(run_id: RunId, body: Body, store: Store, _: Writer) -> Kept:
    """Keep a run; any number of times.

    The body is the manifest, as `manifest.json` in a run directory. A run that still goes on has no
    digest and may be put again as it grows; one that is sealed never changes.
    """
    manifest = _manifest(body)
    if manifest.id != run_id:
        detail = f"the address names {run_id}, the manifest {manifest.id}"
        raise Problem(422, "id-mismatch", detail)
    store.put_run(manifest)
    return Kept(id=manifest.id, digest=manifest.digest)


@router.get("")
def list_runs(
    store: Store,
    _: Reader,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> RunPage:
    """List runs, the newest first."""
    found = store.list_runs(limit=limit + 1, before=cursor)
    is_more = len(found) > limit
    return RunPage(runs=found[:limit], next_cursor=found[limit - 1].id if is_more else None)


@router.get("/{run_id}", response_class=Response)
def get_run(run_id: RunId, store: Store, _: Reader) -> Response:
    """The whole manifest of one run."""
    manifest = store.get_run(run_id)
    document = manifest.model_dump_json(by_alias=True, exclude_unset=True)
    return Response(document, media_type="application/json")


def _manifest(body: bytes) -> Manifest:
    try:
        return Manifest.model_validate_json(body)
    except ValidationError as error:
        faults = [
            {"place": ".".join(map(str, each["loc"])), "expected": each["msg"]}
            for each in error.errors(include_url=False, include_input=False)[:20]
        ]
        raise Problem(422, "manifest-invalid", "the body is no manifest", faults=faults) from None
