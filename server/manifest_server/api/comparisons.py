"""Runs side by side: what changed, and whether it can matter."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from manifest.diffing import diff
from manifest.models import Diff, Impact, TrailComparison, Variation
from manifest.varying import diff_many
from manifest_server.api.parameters import RUN_ID
from manifest_server.dependencies import Reader, Store, all_visible, check_visible
from manifest_server.problems import documented

router = APIRouter(tags=["compare"], responses=documented(401, 403, 404, 422))

_Id = Annotated[str, Field(pattern=f"^{RUN_ID.pattern}$")]


class Several(BaseModel):
    """Runs to compare; the first is what the others are held against."""

    ids: Annotated[list[_Id], Field(min_length=2, max_length=100)]


@router.get("/diff")
def get_diff(
    store: Store,
    caller: Reader,
    a: Annotated[str, Query(pattern=f"^{RUN_ID.pattern}$")],
    b: Annotated[str, Query(pattern=f"^{RUN_ID.pattern}$")],
    *,
    impact: Annotated[list[Impact] | None, Query()] = None,
    section: Annotated[list[str] | None, Query(max_length=20)] = None,
) -> Diff:
    """Every key on which two runs differ, the most consequential first."""
    before, after = all_visible(store, caller, [a, b])
    found = diff(before, after, blobs=store.blobs.text)
    chosen = tuple(
        each
        for each in found.differences
        if (not impact or each.impact in impact) and (not section or each.section in section)
    )
    return found.model_copy(update={"differences": chosen})


@router.get("/divergence")
def get_divergence(
    store: Store,
    caller: Reader,
    a: Annotated[str, Query(pattern=f"^{RUN_ID.pattern}$")],
    b: Annotated[str, Query(pattern=f"^{RUN_ID.pattern}$")],
) -> TrailComparison:
    """The first step, stream and tensor on which the trails of two runs do not agree.

    Where no stream was compared, nothing is known: that is not the same as equal.
    """
    for run_id in (a, b):
        check_visible(store, caller, run_id)
    return store.trails.compare(a, b)


@router.post("/diff")
def diff_several(several: Several, store: Store, caller: Reader) -> list[Variation]:
    """Every key on which not all of several runs agree, with the value of each."""
    chosen = all_visible(store, caller, several.ids)
    return diff_many(chosen, blobs=store.blobs.text)
