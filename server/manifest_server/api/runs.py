"""Runs: put, search, get, and what people say of them."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from manifest.models import Annotations, Manifest, RunSummary, Verdict
from manifest_server.api.description import body, examples
from manifest_server.api.parameters import (
    RUN_ID,
    FilterText,
    IfNoneMatch,
    Limit,
    Project,
    RunId,
    wanted_by,
)
from manifest_server.dependencies import (
    Admin,
    Body,
    Intake,
    Reader,
    Store,
    Writer,
    check_visible,
    visible,
)
from manifest_server.problems import Problem, documented
from manifest_server.sent import SentRemark, SentRun, parsed

router = APIRouter(prefix="/runs", tags=["runs"], responses=documented(401, 403, 404, 409, 422))

IfMatch = Annotated[str | None, Header(description="The ETag of what is replaced.")]


_SHOWN: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/json": examples("Manifest")}}
}


class RunPage(BaseModel):
    """Some runs, the newest first."""

    runs: list[RunSummary]
    next_cursor: str | None = Field(description="Give it as `cursor` for the runs that follow.")


class NewRun(BaseModel):
    """A run to keep, and what it showed if it is a replay."""

    model_config = ConfigDict(extra="forbid")

    manifest: Manifest
    verdict: Verdict | None = None


class NewRuns(BaseModel):
    """Runs to keep together, or none of them."""

    model_config = ConfigDict(extra="forbid")

    runs: Annotated[list[NewRun], Field(max_length=10_000)]


class Ids(BaseModel):
    """Ids of runs."""

    model_config = ConfigDict(extra="forbid")

    ids: Annotated[list[str], Field(max_length=10_000)]


class Kept(BaseModel):
    """What is kept now."""

    id: str
    digest: str = Field(description="Of the manifest; empty while the run goes on.")


@router.put("/{run_id}", responses=documented(503), openapi_extra=body("Manifest"))
async def put_run(  # waits for whoever commits, and holds no thread meanwhile
    run_id: RunId, caller: Writer, body: Body, intake: Intake
) -> Kept:
    """Keep a run; any number of times. What is answered with 200 survives the loss of power.

    The body is the manifest, as `manifest.json` in a run directory. A run that still goes on has no
    digest and may be put again as it grows; one that is sealed never changes.

    Of one that is sealed, sections that are kept already may be left out: `digests` names them.
    """
    kept = await intake.put_run(SentRun(run_id, body, caller))
    return Kept(id=kept.id, digest=kept.digest)


@router.post("", openapi_extra=body("NewRuns"))
def put_runs(body: Body, store: Store, caller: Writer) -> list[Kept]:
    """Keep many runs in one transaction; any number of times."""
    given = parsed(NewRuns, body, "runs").runs
    for run in given:
        caller.check_project(run.manifest.project)
    store.put_runs((run.manifest, run.verdict) for run in given)
    return [Kept(id=run.manifest.id, digest=run.manifest.digest) for run in given]


@router.post("/digests")
def list_digests(wanted: Ids, store: Store, caller: Reader) -> dict[str, str]:
    """The digest kept for each of these runs that is known; empty for one that goes on."""
    return store.digests(wanted.ids, project=caller.project)


@router.get("")
def list_runs(
    store: Store,
    caller: Reader,
    *,
    filter_: FilterText = None,
    project: Project = None,
    limit: Limit = 50,
    cursor: Annotated[str | None, Query(max_length=36, description="Of the page before.")] = None,
    prefix: Annotated[
        str | None, Query(max_length=36, description="Only runs whose id starts so, unfiltered.")
    ] = None,
) -> RunPage:
    """Search runs, the newest first."""
    if prefix is not None:
        chosen = store.find_runs(prefix, limit=limit, project=caller.project or project)
        return RunPage(runs=chosen, next_cursor=None)
    found = store.list_runs(
        limit=limit + 1,
        before=_after(cursor),
        project=caller.project or project,
        wanted=wanted_by(filter_),
    )
    is_more = len(found) > limit
    return RunPage(runs=found[:limit], next_cursor=found[limit - 1].id if is_more else None)


@router.get(
    "/{run_id}",
    response_model=Manifest,
    responses={304: {"description": "The client has it."}, **_SHOWN},
)
def get_run(
    run_id: RunId, store: Store, caller: Reader, if_none_match: IfNoneMatch = None
) -> Response:
    """The whole manifest of one run."""
    manifest = visible(store, caller, run_id)
    etag = f'"{manifest.digest}"' if manifest.digest else None
    if etag is not None and if_none_match == etag:
        return Response(status_code=304, headers={"ETag": etag})
    document = manifest.model_dump_json(by_alias=True, exclude_unset=True)
    headers = {"ETag": etag} if etag is not None else {"Cache-Control": "no-store"}
    return Response(document, media_type="application/json", headers=headers)


@router.get("/{run_id}/sections/{name}")
def get_section(run_id: RunId, name: str, store: Store, caller: Reader) -> dict[str, Any]:
    """One section of a run; an empty one where nothing was captured."""
    return visible(store, caller, run_id).sections.get(name, {})


@router.get("/{run_id}/replays")
def list_replays(run_id: RunId, store: Store, caller: Reader) -> list[RunSummary]:
    """The replays of a run, the newest first, each with its verdict."""
    check_visible(store, caller, run_id)
    return store.list_replays(run_id)


@router.get("/{run_id}/verdict")
def get_verdict(run_id: RunId, store: Store, caller: Reader) -> Verdict:
    """What a replay showed."""
    check_visible(store, caller, run_id)
    verdict = store.get_verdict(run_id)
    if verdict is None:
        detail = f"run {run_id} is no replay, or its comparison has not ended"
        raise Problem(404, "verdict-not-found", detail)
    return verdict


@router.put("/{run_id}/verdict", status_code=204, openapi_extra=body("Verdict"))
def put_verdict(run_id: RunId, store: Store, caller: Writer, body: Body) -> None:
    """Keep what a replay showed, in the place of what was said before."""
    verdict = parsed(Verdict, body, "verdict")
    store.put_run(visible(store, caller, run_id), verdict)


@router.get("/{run_id}/annotations")
def get_annotations(run_id: RunId, store: Store, caller: Reader, response: Response) -> Annotations:
    """Tags and note of a run; its ETag is wanted by whoever changes them."""
    check_visible(store, caller, run_id)
    said = store.get_annotations(run_id)
    response.headers["ETag"] = _etag(said)
    return said


@router.put(
    "/{run_id}/annotations",
    responses=documented(412, 428, 503),
    openapi_extra=body("Annotations"),
)
async def put_annotations(  # waits for whoever commits
    run_id: RunId,
    *,
    caller: Writer,  # before the body: strangers' are not read
    body: Body,
    intake: Intake,
    response: Response,
    if_match: IfMatch = None,
) -> Annotations:
    """Replace tags and note, if they are still what the client has seen."""
    kept = await intake.put_remark(SentRemark(run_id, body, if_match, caller))
    response.headers["ETag"] = _etag(kept)
    return kept


@router.delete("/{run_id}", status_code=204)
def delete_run(run_id: RunId, store: Store, caller: Admin) -> None:
    """Forget a run; what only it referred to is collected later."""
    check_visible(store, caller, run_id)
    store.delete_run(run_id)
    caller.audit(store, "delete run", run_id)


def _after(cursor: str | None) -> str | None:
    if cursor is not None and not RUN_ID.fullmatch(cursor):
        raise Problem(422, "cursor-invalid", "give `next_cursor` of the page before, as it is")
    return cursor


def _etag(said: Annotations) -> str:
    return f'"{said.version}"'
