"""Style, scripts and pictures of the pages: files of this package, named by their content."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Response

from manifest_server.problems import Problem

router = APIRouter(include_in_schema=False)

_TYPES: Final = {
    "favicon.svg": "image/svg+xml",
    "pages.js": "text/javascript",
    "style.css": "text/css",
}
_FOR_EVER: Final = {"Cache-Control": "public, max-age=31536000, immutable"}


@cache
def address_of(name: str) -> str:
    """Where a file is served; another address as soon as its content is another."""
    return f"/static/{hashlib.sha256(_content(name)).hexdigest()[:12]}/{name}"


@router.get("/static/{digest}/{name}")
def get_asset(digest: str, name: str) -> Response:  # noqa: ARG001 -- a page of before the upgrade asks too
    """A file that the pages need."""
    if name not in _TYPES:
        raise Problem(404, "not-found", "the pages have no such file")
    return Response(_content(name), media_type=_TYPES[name], headers=_FOR_EVER)


@cache
def _content(name: str) -> bytes:
    return (files("manifest_server.web") / "static" / name).read_bytes()
