"""Pages that show the API's description: Swagger UI and ReDoc, from an installed package.

They load nothing from elsewhere, and their policy would not let them.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse, Response

from manifest_server.problems import Problem

router = APIRouter(include_in_schema=False)

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)

_ASSETS: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "redoc.standalone.js": "text/javascript",
    "favicon.png": "image/png",
}
_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="docs/favicon.png">
{head}
<div id="page"></div>
<script src="docs/{script}"></script>
<script src="docs/{start}"></script>
"""
_PAGES: Final = {
    "docs": _PAGE.format(
        title="Manifest – API",
        head='<link rel="stylesheet" href="docs/swagger-ui.css">',
        script="swagger-ui-bundle.js",
        start="start-swagger.js",
    ),
    "redoc": _PAGE.format(
        title="Manifest – API", head="", script="redoc.standalone.js", start="start-redoc.js"
    ),
}
_STARTS: Final = {
    "start-swagger.js": (
        "SwaggerUIBundle({url: 'api/v1/openapi.json', dom_id: '#page', deepLinking: true});"
    ),
    "start-redoc.js": (
        "Redoc.init('api/v1/openapi.json', {disableSearch: true}, document.getElementById('page'));"
    ),
}


@router.get("/docs")
def show_docs() -> Response:
    """The API, to try it out."""
    return _page("docs")


@router.get("/redoc")
def show_redoc() -> Response:
    """The API, to read."""
    return _page("redoc")


@router.get("/docs/{name}")
def get_asset(name: str) -> Response:
    """A file that the pages need."""
    headers = {"Cache-Control": "max-age=3600"}
    if name in _STARTS:
        return Response(_STARTS[name], media_type="text/javascript", headers=headers)
    if name in _ASSETS:
        path = str(files("fastapi_offline") / "static" / name)
        return FileResponse(path, media_type=_ASSETS[name], headers=headers)
    raise Problem(404, "not-found", "the pages have no such file")


def _page(name: str) -> Response:
    return HTMLResponse(_PAGES[name], headers={"Content-Security-Policy": POLICY})
