"""All pages, put together."""

from __future__ import annotations

from fastapi import APIRouter

from manifest_server.web import (
    account,
    assets,
    before,
    catalog,
    comparison,
    divergence,
    files,
    guide,
    replays,
    run,
    runs,
    tagging,
    tokens,
)

router = APIRouter(include_in_schema=False)

for _module in (
    *(account, assets, before, catalog, comparison, divergence),
    *(files, guide, replays, run, runs, tagging, tokens),
):
    router.include_router(_module.router)
