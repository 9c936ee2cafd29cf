"""What services have acknowledged of a run, in a file beside it.

Written after a service has said that it keeps everything, and never before. Losing it loses
nothing: the run is sent again, and the service finds that it has it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Final, TypeAlias

from manifest.canonical import canonical_bytes, digest_value
from manifest.rundir import RunDirectory

FILE: Final = "delivered.json"

Acknowledged: TypeAlias = Mapping[str, str]
"""The digests of a manifest and of a verdict; empty where there was none."""


def contents(run: RunDirectory) -> Acknowledged | None:
    """What there is to acknowledge of a sealed run; None while it goes on."""
    digest = _digest(run)
    if not digest:
        return None
    verdict = run.verdict()
    return {"manifest": digest, "verdict": "" if verdict is None else digest_value(verdict)}


def acknowledged(run: RunDirectory) -> dict[str, Acknowledged]:
    """What each service has acknowledged, by its address."""
    try:
        found = json.loads((run.path / FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(url): each for url, each in found.items() if isinstance(each, dict)}


def acknowledge(run: RunDirectory, url: str, what: Acknowledged) -> None:
    """Write down that a service keeps all of this.

    Raises:
        OSError: The disk is full, or the folder may not be written.
    """
    data = canonical_bytes({**acknowledged(run), url: dict(what)}) + b"\n"
    draft = run.path / f".{FILE}.{os.getpid()}"
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(run.path / FILE)
    finally:
        draft.unlink(missing_ok=True)


def is_delivered(run: RunDirectory, url: str | None = None) -> bool:
    """Whether a service, or any, has acknowledged all that there is of a run."""
    known = acknowledged(run)
    if not known:
        return False
    found = contents(run)
    kept = known.values() if url is None else [known.get(url)]
    return found is not None and any(each == found for each in kept)


def _digest(run: RunDirectory) -> str:
    # Read from the beginning of the file alone, where its canonical form has it.
    try:
        with (run.path / "manifest.json").open("rb") as file:
            start = file.read(100)
    except OSError:
        return ""
    prefix = b'{"digest":"'
    if start.startswith(prefix):
        return start[len(prefix) :].partition(b'"')[0].decode("ascii", "replace")
    return str(run.document().get("digest", ""))
