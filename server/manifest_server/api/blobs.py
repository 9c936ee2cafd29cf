"""Blobs: put, get, and what a client need not send."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from manifest.errors import DigestMismatch
from manifest_server.api.description import bytes_body
from manifest_server.api.parameters import DIGEST, Digest, IfNoneMatch
from manifest_server.blobs import KeptBlob
from manifest_server.dependencies import Reader, ReceivedBlob, Store, Writer
from manifest_server.problems import documented

router = APIRouter(tags=["blobs"], responses=documented(401, 403, 422))

_Digest = Annotated[str, Field(pattern=DIGEST)]
_Key = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
_MOST = 10_000


class Named(BaseModel):
    """What there is, named by its digests."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sections: Annotated[dict[str, _Digest], Field(max_length=100)] = Field(
        default_factory=dict, description="The digest of each section, as in the manifest."
    )
    blobs: Annotated[list[_Digest], Field(max_length=_MOST)] = Field(default_factory=list)
    segments: Annotated[list[_Key], Field(max_length=_MOST)] = Field(
        default_factory=list,
        description="Of 1024 rows of a trail: the first 32 digits of their SHA-256.",
    )


@router.post("/lacking")
def list_lacking(named: Named, store: Store, caller: Writer) -> Named:
    """Of all that a client has, what it must send."""
    known = store.known_sections(named.sections, project=caller.project) if named.sections else ()
    return Named(
        sections={name: each for name, each in named.sections.items() if name not in known},
        blobs=store.blobs.lacking(named.blobs, project=caller.project),
        segments=store.trails.lacking(named.segments, project=caller.project),
    )


@router.put(
    "/blobs/{digest}",
    status_code=204,
    openapi_extra=bytes_body(),
    responses=documented(409, 413),
)
def put_blob(digest: Digest, _: Writer, received: ReceivedBlob, store: Store) -> None:
    """Keep bytes; any number of times. What no run refers to is deleted after a day."""
    keep(store, received, digest)


@router.get("/blobs/{digest}", response_class=Response, responses=documented(404))
def get_blob(
    digest: Digest, store: Store, caller: Reader, if_none_match: IfNoneMatch = None
) -> Response:
    """The bytes of a blob that a run of the caller's refers to."""
    blob = store.blobs.find(digest, project=caller.project)
    if if_none_match == f'"{digest}"':
        return Response(status_code=304, headers=attachment(blob))
    return StreamingResponse(store.blobs.read(blob), headers=attachment(blob) | length(blob))


@router.head("/blobs/{digest}", response_class=Response, responses=documented(404))
def head_blob(digest: Digest, store: Store, caller: Reader) -> Response:
    """Whether a blob is there, and its size."""
    blob = store.blobs.find(digest, project=caller.project)
    return Response(headers=attachment(blob) | length(blob))


def keep(store: Store, received: ReceivedBlob, digest: str | None = None) -> str:
    """Keep a body as a blob; gives its digest.

    Raises:
        DigestMismatch: It is not what it was said to be.
    """
    if digest is not None and received.digest != digest:
        raise DigestMismatch(digest, received.digest, "the body")
    store.blobs.put_checked(received.digest, received.file, received.size)
    return received.digest


def attachment(blob: KeptBlob, name: str = "") -> dict[str, str]:
    """The headers of a blob's bytes: something to save, never something to show."""
    name = name or blob.digest.removeprefix("sha256:")
    return {
        "ETag": f'"{blob.digest}"',
        # Bytes under their digest never change; who may read them may.
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Type": "application/octet-stream",
        # It is what a program had, and may be a page: no browser is to take it for one.
        "Content-Disposition": f'attachment; filename="{name}"',
        "X-Content-Type-Options": "nosniff",
    }


def length(blob: KeptBlob) -> dict[str, str]:
    """The header that says how many bytes follow."""
    return {"Content-Length": str(blob.size)}
