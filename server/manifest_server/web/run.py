"""The page of one run: what came of it first, then all that was recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from manifest import ranks
from manifest.describing import command_line
from manifest.doubts import doubts
from manifest.errors import AmbiguousReference, RunNotFound
from manifest.identity import short_id
from manifest.models import Difference, Doubt, Manifest, Process, Verdict
from manifest.restoring import put_back
from manifest.summaries import summarize
from manifest_server.api.parameters import RUN_ID, RunId
from manifest_server.callers import Caller
from manifest_server.dependencies import Store, visible
from manifest_server.sqlstore import SqlStore
from manifest_server.web.before import run_before
from manifest_server.web.files import named_files, read_text
from manifest_server.web.machines import machine
from manifest_server.web.replays import history
from manifest_server.web.sections import sections_of
from manifest_server.web.templating import page
from manifest_server.web.visitors import Visitor

router = APIRouter(include_in_schema=False)

_MOST_EXPLANATIONS: Final = 5
_MOST_PATCH_BYTES: Final = 2**17
_MOST_PATCH_LINES: Final = 400
_MOST_PROCESSES: Final = 200
_MOST_DIFFERENCES: Final = 40


@dataclass(frozen=True, slots=True)
class Member:
    """A process of the run that trained."""

    name: str
    process: str
    facts: Process
    differences: Sequence[Difference] = ()
    """What it recorded otherwise than the first rank."""


@router.get("/runs/{run_id}")
def show_run(request: Request, run_id: str, store: Store, visitor: Visitor) -> Response:
    """All of one run; a shortened id leads to the whole one."""
    if not RUN_ID.fullmatch(run_id):
        return RedirectResponse(f"/runs/{_whole_id(store, visitor, run_id)}", status_code=303)
    manifest = visible(store, visitor, run_id)
    verdict = store.get_verdict(run_id)
    replays = history(store, visitor, run_id)
    files = _kept_files(store, visitor, manifest)
    return page(
        request,
        "run.html",
        run=manifest,
        command=command_line(manifest),
        steps=max((p.trail.steps for p in manifest.processes.values() if p.trail), default=None),
        machine=machine(manifest.sections.get("hardware", {})),
        verdict=verdict,
        explanations=_explanations(verdict),
        put_back=put_back(verdict.restores) if verdict and verdict.restores else "",
        history=replays,
        has_before=manifest.replay_of is None
        and run_before(store, summarize(manifest)) is not None,
        doubts=_doubts(manifest),
        unrestored=[r for r in manifest.restores if r.outcome in ("failed", "skipped")],
        sections=sections_of(manifest),
        files=files,
        patch=_patch(store, visitor, manifest, files),
        members=_members(manifest),
        annotations=store.get_annotations(run_id),
        entropy_from=_entropy_from(manifest),
        origin=str(request.base_url).rstrip("/"),
    )


@router.get("/runs/{run_id}/manifest.json")
def get_manifest(run_id: RunId, store: Store, visitor: Visitor) -> Response:
    """The manifest itself, for programs."""
    manifest = visible(store, visitor, run_id)
    name = f"manifest-{short_id(run_id)}.json"
    return Response(
        manifest.model_dump_json(by_alias=True, exclude_unset=True),
        media_type="application/json",
        headers={"Content-Disposition": f'inline; filename="{name}"', "Cache-Control": "no-cache"},
    )


def _whole_id(store: SqlStore, visitor: Caller, start: str) -> str:
    found = store.find_runs(start, limit=2, project=visitor.project)
    if not found:
        raise RunNotFound(start[:80], store.location)
    if len(found) > 1:
        raise AmbiguousReference(start, [run.id for run in found])
    return found[0].id


def _doubts(manifest: Manifest) -> list[Doubt]:
    # Of a run that goes on, not everything is known yet.
    return [] if manifest.status == "running" else doubts(manifest)


def _explanations(verdict: Verdict | None) -> Sequence[Difference]:
    is_parted = verdict is not None and verdict.outcome == "diverged"
    return verdict.explanations[:_MOST_EXPLANATIONS] if verdict and is_parted else ()


def _kept_files(store: SqlStore, visitor: Caller, manifest: Manifest) -> Mapping[str, str]:
    """The files of the run that can be shown here, by digest, with a name of each."""
    named = named_files(manifest)
    lacking = set(store.blobs.lacking(list(named), project=visitor.project))
    return {digest: names[0] for digest, names in named.items() if digest not in lacking}


def _patch(
    store: SqlStore, visitor: Caller, manifest: Manifest, files: Mapping[str, str]
) -> tuple[Sequence[str], int]:
    """The first lines of the uncommitted change, and how many more there are."""
    digest = manifest.sections.get("code", {}).get("git.patch")
    if not isinstance(digest, str) or digest not in files:
        return (), 0
    blob = store.blobs.find(digest, project=visitor.project)
    lines = (read_text(store, blob, most=_MOST_PATCH_BYTES) or "").splitlines()
    return lines[:_MOST_PATCH_LINES], max(0, len(lines) - _MOST_PATCH_LINES)


def _members(manifest: Manifest) -> list[Member]:
    """The processes that trained, if there are several: by rank, or by name."""
    names = ranks.names(manifest)
    chosen = names or {
        name: name for name, facts in manifest.processes.items() if facts.trail is not None
    }
    if len(chosen) < 2:
        return []
    differing = ranks.differences(manifest)
    return [
        Member(
            name,
            process,
            manifest.processes[process],
            differing.get(name, ())[:_MOST_DIFFERENCES] if names else (),
        )
        for process, name in list(chosen.items())[:_MOST_PROCESSES]
    ]


def _entropy_from(manifest: Manifest) -> str | None:
    found = manifest.sections.get("seeds", {}).get("entropy_from")
    is_id = isinstance(found, str) and RUN_ID.fullmatch(found)
    return found if is_id and manifest.replay_of is None else None
