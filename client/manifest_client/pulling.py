"""Fetch a run that a service has, as a run directory like any other.

What comes is checked by its digests before the directory is there at all. It says that it was
fetched, so that nobody runs it in the belief that it is their own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from manifest.blobs import blobs_of
from manifest.canonical import canonical_bytes, digest_bytes
from manifest.delivered import acknowledge, contents
from manifest.errors import BlobNotFound, DamagedRun, DigestMismatch, RunNotFound
from manifest.models import KeptTrail
from manifest.rundir import RunDirectory
from manifest.sealing import read_sealed
from manifest.trail import Trail
from manifest_client.arriving import PROCESS, drafted, settle, write_origin
from manifest_client.connection import API, Client
from manifest_client.httpstore import HttpStore
from manifest_client.problems import AnswerUnusable

_KEPT_TRAILS = TypeAdapter(list[KeptTrail])
_SUFFIX: Final = re.compile(r"(?!bin$)[a-z]{1,20}")


def pull(run_id: str, client: Client, base: Path) -> RunDirectory:
    """Fetch a run, unless it is here already.

    Args:
        run_id: The whole id.
        client: Asks the service.
        base: The folder that keeps runs.

    Raises:
        RunNotFound: The service has no such run.
        DamagedRun: It still goes on, or what came is not what was sealed.
    """
    run = RunDirectory(base / "runs" / run_id)
    if run.path.is_dir():
        return run
    store = HttpStore(client)
    manifest = store.get_run(run_id)
    if not manifest.digest:
        raise DamagedRun(f"{client.url}: run {run_id}", "it goes on; fetch it when it is over")
    verdict = store.get_verdict(run_id)
    with drafted(base, run_id) as draft:
        _write_manifest(draft, client)
        write_origin(draft, manifest)
        for digest in sorted(blobs_of(manifest)):
            _write_blob(draft, digest, client)
        for trail in _trails(run_id, client):
            _write_trail(draft, trail, client)
        if verdict is not None:
            draft.put_verdict(verdict.model_dump(mode="json"))
        draft.mark_as_pulled(client.url)
        if (what := contents(draft)) is not None:
            acknowledge(draft, client.url, what)
        return settle(draft, base)


def _write_manifest(draft: RunDirectory, client: Client) -> None:
    path = f"{API}/runs/{draft.id}"
    data = client.request("GET", path, reference=draft.id).content
    document = read_sealed(data, client.url + path)
    (draft.path / "manifest.json").write_bytes(canonical_bytes(document) + b"\n")


def _write_blob(draft: RunDirectory, digest: str, client: Client) -> None:
    try:
        data = client.request("GET", f"{API}/blobs/{digest}").content
    except BlobNotFound:
        return  # the run never had it, or whoever sent it had lost it: a replay says so
    if draft.put_blob(data) != digest:
        raise DigestMismatch(digest, digest_bytes(data), client.url)


def _trails(run_id: str, client: Client) -> list[KeptTrail]:
    data = client.request("GET", f"{API}/runs/{run_id}/trails", reference=run_id).content
    try:
        found = _KEPT_TRAILS.validate_json(data)
    except ValidationError as error:
        raise AnswerUnusable(client.url, str(error)) from error
    for trail in found:
        names = [trail.process, *trail.files]
        if not PROCESS.fullmatch(trail.process) or not all(map(_SUFFIX.fullmatch, trail.files)):
            raise AnswerUnusable(client.url, f"it names files {names!r:.200}")
    return found


def _write_trail(draft: RunDirectory, trail: KeptTrail, client: Client) -> None:
    path = f"{API}/runs/{draft.id}/trails/{trail.process}"
    rows = draft.trail_path(trail.process)
    rows.write_bytes(client.request("GET", path, reference=draft.id).content)
    if Trail.open(rows).steps != trail.steps:
        raise DamagedRun(f"{client.url}{path}", f"expected {trail.steps} steps")
    for suffix, digest in trail.files.items():
        data = client.request("GET", f"{path}/files/{suffix}", reference=draft.id).content
        if digest_bytes(data) != digest:
            raise DigestMismatch(digest, digest_bytes(data), f"{client.url}{path}/files/{suffix}")
        rows.with_name(f"{trail.process}.{suffix}").write_bytes(data)


def find_remote(reference: str, client: Client) -> str:
    """The whole id of the run of a service that the user means.

    Raises:
        RunNotFound: There is no such run.
        AmbiguousReference: It fits several.
    """
    from manifest_client.references import resolve

    if not reference:
        raise RunNotFound(reference, client.url)
    return resolve(reference, HttpStore(client), client.url)
