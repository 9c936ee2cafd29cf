"""A run as a Process Run Crate: a zip of its files and what archives of research data read of it.

The crate holds the run's own archive too, so that what was published can be taken in and replayed.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from manifest.canonical import checked_digest
from manifest.describing import command_line, shortened_command, shown
from manifest.errors import DigestMismatch
from manifest.exports.requirements import requirements_text
from manifest.models import Manifest
from manifest.needs.items import shortened
from manifest.recorded import Recorded
from manifest.rundir import RunDirectory
from manifest.workspace import confined
from manifest_client.archives import packed

CRATE: Final = "https://w3id.org/ro/crate/1.1"
PROFILE: Final = "https://w3id.org/ro/wfrun/process/0.5"

_DESCRIPTION: Final = "ro-crate-metadata.json"
_ARCHIVE: Final = "run.tar"
_REQUIREMENTS: Final = "requirements.txt"
_PORTION_BYTES: Final = 1 << 20
_MOMENT: Final = (1980, 1, 1, 0, 0, 0)  # of every member, so that a run has one crate
_STATUS: Final = {"finished": "http://schema.org/CompletedActionStatus"}

Entity = dict[str, Any]


def crated(recorded: Recorded, manifest: Manifest, run: RunDirectory) -> Iterator[bytes]:
    """The crate of a run, piece by piece; the same run gives the same bytes.

    Raises:
        DamagedRun: The run goes on, or cannot be read.
        NotReplayable: A recorded path would leave the crate.
    """
    files = dict(_files(recorded, run))
    files[_REQUIREMENTS] = requirements_text(recorded).encode()
    metadata = describe(recorded, manifest, sorted(files))
    text = json.dumps(metadata, indent=2, ensure_ascii=False) + "\n"
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w") as crate:
            crate.writestr(zipfile.ZipInfo(_DESCRIPTION, _MOMENT), text.encode())
            for name, content in sorted(files.items()):
                crate.writestr(zipfile.ZipInfo(name, _MOMENT), content)
            with crate.open(zipfile.ZipInfo(_ARCHIVE, _MOMENT), "w", force_zip64=True) as member:
                for piece in packed(run):
                    member.write(piece)
        file.seek(0)
        while piece := file.read(_PORTION_BYTES):
            yield piece


def describe(recorded: Recorded, manifest: Manifest, files: list[str]) -> Entity:
    """The description of a crate that holds these files and the archive of the run."""
    command = shown(command_line(manifest))
    parts = [*files, _ARCHIVE]
    action = f"#{manifest.id}"
    return {
        "@context": f"{CRATE}/context",
        "@graph": [
            {
                "@id": _DESCRIPTION,
                "@type": "CreativeWork",
                "conformsTo": _to(CRATE),
                "about": _to("./"),
            },
            {
                "@id": "./",
                "@type": "Dataset",
                "name": shown(manifest.name or f"Run {manifest.id} of {manifest.project}"),
                "description": f"A recorded run of `{shortened(command)}`, with all that "
                f"`manifest import {_ARCHIVE}` and `manifest replay` need of it.",
                "datePublished": _moment(manifest.ended_at or manifest.started_at),
                "license": _to("#licence"),
                "conformsTo": _to(PROFILE),
                "hasPart": [_to(_reference(name)) for name in parts],
                "mentions": _to(action),
            },
            {
                "@id": PROFILE,
                "@type": "CreativeWork",
                "name": "Process Run Crate",
                "version": "0.5",
            },
            {
                "@id": "#licence",
                "@type": "CreativeWork",
                "name": "No licence is stated",
                "description": "Whoever publishes this says here how it may be used.",
            },
            _program(recorded),
            _action(manifest, action, command, files),
            *(_file(name) for name in parts),
        ],
    }


def _files(recorded: Recorded, run: RunDirectory) -> Iterator[tuple[str, bytes]]:
    for path, digest in recorded.sources.items():
        content = _blob(run, digest)
        if content is not None:
            yield f"source/{confined(path)}", content
    patch = recorded.code.get("git.patch")
    content = _blob(run, patch) if isinstance(patch, str) else None
    if content is not None:
        yield "change.patch", content


def _blob(run: RunDirectory, digest: str) -> bytes | None:
    try:
        return run.get_blob(checked_digest(digest))
    except (KeyError, ValueError, DigestMismatch):
        return None  # the archive says so, and a replay


def _program(recorded: Recorded) -> Entity:
    code = recorded.code
    found: Entity = {
        "@id": "#program",
        "@type": "SoftwareApplication",
        "name": shown(shortened_command(" ".join(recorded.command.arguments[:2]))) or "program",
        "softwareRequirements": _to(_REQUIREMENTS),
    }
    if isinstance(commit := code.get("git.commit"), str):
        found["softwareVersion"] = shown(commit)
    if isinstance(remote := code.get("git.remote"), str) and remote.startswith("https://"):
        found["url"] = shown(remote)
    return found


def _action(manifest: Manifest, action: str, command: str, files: list[str]) -> Entity:
    found: Entity = {
        "@id": action,
        "@type": "CreateAction",
        "name": f"Run {manifest.id}",
        "description": command,
        "startTime": _moment(manifest.started_at),
        "instrument": _to("#program"),
        "object": [_to(_reference(name)) for name in files],
        "result": _to(_ARCHIVE),
        "actionStatus": _STATUS.get(manifest.status, "http://schema.org/FailedActionStatus"),
    }
    if manifest.ended_at:
        found["endTime"] = _moment(manifest.ended_at)
    if manifest.error:
        found["error"] = shown(manifest.error)
    return found


def _file(name: str) -> Entity:
    kinds = {_ARCHIVE: "application/x-tar", _REQUIREMENTS: "text/plain"}
    kind = kinds.get(name) or ("text/x-python" if name.endswith(".py") else None)
    entity = {"@id": _reference(name), "@type": "File", "name": shown(os.path.basename(name))}
    return entity | ({"encodingFormat": kind} if kind else {})


def _moment(text: str) -> str:
    # What validators of this profile take, of all the forms that its standard has.
    return datetime.fromisoformat(text).astimezone(UTC).isoformat(timespec="milliseconds")


def _reference(name: str) -> str:
    return quote(name, errors="surrogateescape")


def _to(name: str) -> Entity:
    return {"@id": name}
