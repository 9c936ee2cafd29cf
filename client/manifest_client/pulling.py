"""Fetch a run that a service has, as a run directory like any other.

What comes is checked by its digests before the directory is there at all. It says that it was
fetched, so that nobody runs it in the belief that it is their own.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from manifest.blobs import blobs_of
from manifest.canonical import canonical_bytes, digest_bytes
from manifest.delivered import acknowledge, contents
from manifest.errors import BlobNotFound, DamagedRun, DigestMismatch, RunNotFound
from manifest.journal import Journal
from manifest.models import KeptTrail, Manifest
from manifest.rundir import RunDirectory, furnish
from manifest.sealing import read_sealed
from manifest.trail import Trail
from manifest_client.connection import API, Client
from manifest_client.httpstore import HttpStore
from manifest_client.problems import AnswerUnusable

_KEPT_TRAILS = TypeAdapter(list[KeptTrail])
_PROCESS: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~-]{0,127}")
_SUFFIX: Final = re.compile(r"(?!bin$)[a-z]{1,20}")
_ENTROPY: Final = re.compile(r"[0-9a-f]{64}")


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
    with _draft(base, run_id) as draft:
        _write_manifest(draft, client)
        _write_journal(draft, manifest)
        for digest in sorted(blobs_of(manifest)):
            _write_blob(draft, digest, client)
        for trail in _trails(run_id, client):
            _write_trail(draft, trail, client)
        if verdict is not None:
            draft.put_verdict(verdict.model_dump(mode="json"))
        draft.mark_as_pulled(client.url)
        if (what := contents(draft)) is not None:
            acknowledge(draft, client.url, what)
        try:
            draft.path.rename(run.path)
        except OSError:
            if not run.path.is_dir():  # else another process was quicker
                raise
    return run


@contextmanager
def _draft(base: Path, run_id: str) -> Iterator[RunDirectory]:
    # Made under the base of its own, for the folder of a run is named by its id.
    folder = base / f".pull-{os.getpid()}"
    try:
        draft = RunDirectory.create(folder, run_id)
        (base / "runs").mkdir(exist_ok=True)
        furnish(base)
        yield draft
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_manifest(draft: RunDirectory, client: Client) -> None:
    path = f"{API}/runs/{draft.id}"
    data = client.request("GET", path, reference=draft.id).content
    document = read_sealed(data, client.url + path)
    (draft.path / "manifest.json").write_bytes(canonical_bytes(document) + b"\n")


def _write_journal(draft: RunDirectory, manifest: Manifest) -> None:
    """The entry that a run begins with, from which a replay takes its entropy."""
    seeds = manifest.sections.get("seeds", {})
    root = manifest.sections.get("command", {}).get("root")
    entropy = seeds.get("entropy")
    if not isinstance(entropy, str) or not _ENTROPY.fullmatch(entropy):
        raise DamagedRun(draft.id, "it does not say from which entropy it drew")
    if not isinstance(root, str) or not os.path.isabs(root):
        raise DamagedRun(draft.id, "it does not say in which folder it ran")
    journal = Journal(draft.path / "journal" / "run.jsonl")
    said: dict[str, Any] = {
        "schema": manifest.schema_version,
        "id": manifest.id,
        "mode": manifest.mode,
        "project": manifest.project,
        "name": manifest.name,
        "replay_of": manifest.replay_of,
        "root": root,
        "entropy": entropy,
        "entropy_from": seeds.get("entropy_from"),
        "pinned_os_entropy": seeds.get("pinned_os_entropy") is True,
    }
    journal.append("run", **said)
    failure = journal.failure
    journal.close()
    if failure is not None:
        raise failure


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
        if not _PROCESS.fullmatch(trail.process) or not all(map(_SUFFIX.fullmatch, trail.files)):
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
