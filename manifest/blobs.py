"""The blobs that a manifest refers to: what it names by digest, and is kept beside it."""

from __future__ import annotations

from contextlib import suppress

from manifest.canonical import Digest, Json, checked_digest
from manifest.models import Manifest


def blobs_of(manifest: Manifest) -> set[Digest]:
    """Every blob that a section of any process refers to."""
    found = blobs_in(manifest.sections)
    for process in manifest.processes.values():
        found |= blobs_in(process.sections)
    return found


def blobs_in(value: Json) -> set[Digest]:
    """Every digest in a plain value, wherever it stands.

    Only blobs are named by ``sha256:`` in a section: of what is recognised and not kept there is a
    digest of another algorithm.

    Example:
        >>> blobs_in({"files": {"train.py": "sha256:" + "ab" * 32}, "commit": "8e7ee76"})
        {'sha256:abababababababababababababababababababababababababababababababab'}
    """
    found: set[Digest] = set()
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, dict):
            pending.extend(each.values())
        elif isinstance(each, list):
            pending.extend(each)
        elif isinstance(each, str) and each.startswith("sha256:"):
            with suppress(ValueError):
                found.add(checked_digest(each))
    return found
