"""Trails: the fingerprints of a run, step by step, as they lie in its directory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from manifest.errors import BlobNotFound
from manifest.models import KeptTrail
from manifest.streams import ROW_SIZE
from manifest_server.api.blobs import keep
from manifest_server.api.description import bytes_body
from manifest_server.api.parameters import FromStep, Process, RunId, Suffix
from manifest_server.dependencies import (
    Body,
    Reader,
    ReceivedBlob,
    Store,
    Writer,
    check_visible,
)
from manifest_server.problems import documented

router = APIRouter(
    prefix="/runs/{run_id}/trails", tags=["trails"], responses=documented(401, 403, 404, 422)
)

_BYTES: Final = "application/octet-stream"
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Disposition": "attachment",
    "X-Content-Type-Options": "nosniff",
}


class Steps(BaseModel):
    """How much of a trail is kept."""

    steps: int


class Known(BaseModel):
    """Rows that need not be sent, as the service has them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    segments: Annotated[
        list[Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]], Field(min_length=1, max_length=5000)
    ] = Field(description="Of 1024 rows each: the first 32 digits of their SHA-256.")


@router.get("")
def list_trails(run_id: RunId, store: Store, caller: Reader) -> list[KeptTrail]:
    """The trails of a run, and how many steps of each are kept."""
    check_visible(store, caller, run_id)
    return store.trails.list(run_id)


@router.put("/{process}", openapi_extra=bytes_body(), responses=documented(409, 413))
def put_rows(
    run_id: RunId, process: Process, caller: Writer, rows: Body, *, store: Store, start: FromStep
) -> Steps:
    """Keep rows, any number of times; rows that are kept never change.

    The body is a part of the file `trail/<process>.bin`: from step 0 on with its first line, else
    whole rows alone. Parts follow each other, and each begins at a multiple of 1024 steps, where
    the one before may have ended later.
    """
    check_visible(store, caller, run_id)
    return Steps(steps=store.trails.put_rows(run_id, process, rows, start=start))


@router.put("/{process}/segments", responses=documented(409))
def put_known_rows(
    run_id: RunId, process: Process, known: Known, *, store: Store, caller: Writer, start: FromStep
) -> Steps:
    """Keep rows that another trail has already; `POST /lacking` says which must be sent."""
    check_visible(store, caller, run_id)
    steps = store.trails.put_known(
        run_id, process, known.segments, start=start, project=caller.project
    )
    return Steps(steps=steps)


@router.get("/{process}", response_class=Response)
def get_rows(run_id: RunId, process: Process, store: Store, caller: Reader) -> Response:
    """The file of rows as it was put, byte for byte."""
    check_visible(store, caller, run_id)
    trail = store.trails.find(run_id, process)
    header = store.trails.header(run_id, process)

    def content() -> Iterator[bytes]:
        yield header
        yield from store.trails.rows(run_id, trail)

    length = {"Content-Length": str(len(header) + trail.steps * ROW_SIZE)}
    return StreamingResponse(content(), media_type=_BYTES, headers=_HEADERS | length)


@router.put(
    "/{process}/files/{suffix}",
    status_code=204,
    openapi_extra=bytes_body(),
    responses=documented(413),
)
def put_file(
    run_id: RunId,
    process: Process,
    suffix: Suffix,
    caller: Writer,
    received: ReceivedBlob,
    *,
    store: Store,
) -> None:
    """Keep what lies beside the rows, in place of what was put before."""
    check_visible(store, caller, run_id)
    store.trails.put_file(run_id, process, suffix, keep(store, received))


@router.get("/{process}/files/{suffix}", response_class=Response)
def get_file(
    run_id: RunId, process: Process, suffix: Suffix, *, store: Store, caller: Reader
) -> Response:
    """What lies beside the rows, as it was put."""
    check_visible(store, caller, run_id)
    digest = store.trails.find(run_id, process).files.get(suffix)
    if digest is None:
        raise BlobNotFound(f"'.{suffix}' of '{process}'")
    blob = store.blobs.find(digest)
    length = {"Content-Length": str(blob.size)}
    return StreamingResponse(store.blobs.read(blob), media_type=_BYTES, headers=_HEADERS | length)
