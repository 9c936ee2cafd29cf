"""Pages of what there is: projects, and the service itself."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from manifest.canonical import SCHEMA
from manifest_server.dependencies import Settings, Store
from manifest_server.web.templating import fitting, page
from manifest_server.web.visitors import Visitor

router = APIRouter(include_in_schema=False)

_MOST_PROJECTS: Final = 1000


@router.get("/projects")
def show_projects(request: Request, store: Store, visitor: Visitor) -> Response:
    """Every project, the one with most runs first."""
    found = store.tally_projects(limit=_MOST_PROJECTS, project=visitor.project)
    rows = [
        (newest.project, runs, newest, fitting("", "project", newest.project))
        for runs, newest in found
    ]
    return page(request, "projects.html", rows=rows)


@router.get("/about")
def show_about(request: Request, store: Store, settings: Settings, visitor: Visitor) -> Response:
    """Which version this is, and how it serves."""
    facts = {
        "Manifest": version("manifest-replay"),
        "Schema of manifests": str(SCHEMA),
        "Database": store.backend,
        "Blobs": "in the database" if settings.blob_url is None else "outside the database",
        "Tokens": "every request needs one" if settings.auth == "tokens" else "none is asked for",
        "You": visitor.name,
        "Your project": visitor.project or "all",
        "Python": sys.version.partition(" ")[0],
    }
    return page(request, "about.html", facts=facts, is_current=store.is_current())
