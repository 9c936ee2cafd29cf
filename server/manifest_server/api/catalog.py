"""What there is to look for: projects, fields, and how many runs have each value."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from manifest.filtering import parse_field
from manifest.models import FacetValue
from manifest_server.api.parameters import FilterText, Limit, Project, wanted_by
from manifest_server.dependencies import Reader, Store
from manifest_server.problems import documented

router = APIRouter(tags=["search"], responses=documented(401, 403, 422))


class Facet(BaseModel):
    """How many runs have each value of a field."""

    field: str
    values: list[FacetValue]


@router.get("/projects")
def list_projects(store: Store, caller: Reader) -> list[str]:
    """The projects that the caller may see."""
    return [caller.project] if caller.project is not None else store.list_projects()


@router.get("/fields")
def list_fields(
    store: Store,
    caller: Reader,
    prefix: Annotated[str, Query(max_length=300)] = "",
    limit: Limit = 50,
) -> list[str]:
    """Fields that begin with a prefix, as filters write them."""
    return store.list_fields(prefix, limit=limit, project=caller.project)


@router.get("/facets")
def list_facets(
    store: Store,
    caller: Reader,
    field: Annotated[list[str], Query(max_length=20, examples=[["settings.torch.version"]])],
    *,
    filter_: FilterText = None,
    project: Project = None,
    limit: Limit = 20,
) -> list[Facet]:
    """Count the values of one or several fields, the most frequent first."""
    wanted, chosen = wanted_by(filter_), caller.project or project
    return [
        Facet(
            field=name,
            values=store.count_values(
                parse_field(name), limit=limit, project=chosen, wanted=wanted
            ),
        )
        for name in field
    ]
