"""A manifest as rows, and back."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from manifest.canonical import (
    Digest,
    canonical_bytes,
    checked_digest,
    digest_bytes,
    digest_value,
)
from manifest.errors import DamagedRun, DigestMismatch
from manifest.models import Manifest, Section, Verdict
from manifest.summaries import summarize

_OWN = frozenset({"command", "config", "seeds", "generators"})
"""Sections that are hardly ever the same in two runs; sharing them would only cost."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_UNCOMPRESSED_BYTES = 200  # zlib's own start costs more than it saves below this


@dataclass(frozen=True, slots=True)
class PackedRun:
    """The rows that one run becomes."""

    row: dict[str, object]
    sections: dict[Digest, bytes] = field(default_factory=dict)
    references: list[dict[str, object]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class KeptSection:
    """A section that a run refers to, as it is kept."""

    process: str
    name: str
    digest: str
    body: bytes


def pack_runs(manifests: Iterable[Manifest]) -> list[PackedRun]:
    """Turn manifests into rows.

    A sealed run never changes, so its sections are split off to be shared; a run that still goes
    on is kept whole, or every look at it would leave sections behind that nobody refers to.

    Raises:
        DamagedRun: A manifest has no canonical form, or its id or digest is none.
        DigestMismatch: A section is not what its digest says.
    """
    seen: _Seen = {}
    return [_pack_run(manifest, seen) for manifest in manifests]


def unpack_run(document: bytes, digest: str, sections: Iterable[KeptSection]) -> Manifest:
    """Put a manifest together again, exactly as it was packed.

    Raises:
        DigestMismatch: A section's bytes were changed.
        ValueError: The document is not one.
    """
    whole = json.loads(expanded(document))
    whole["digest"] = digest
    digests = {name: digest_value(section) for name, section in whole["sections"].items()}
    for section in sections:
        body = expanded(section.body)
        if (found := digest_bytes(body)) != section.digest:
            raise DigestMismatch(section.digest, found, f"section '{section.name}' in the store")
        if not section.process:
            digests[section.name] = found
        holder = whole["processes"][section.process] if section.process else whole
        holder["sections"][section.name] = json.loads(body)
    if whole.pop(_DIGESTS_LEFT_OUT, False):
        whole["digests"] = digests
    return Manifest.model_validate(whole)


def pack_verdict(verdict: Verdict) -> bytes:
    """Turn a verdict into the bytes that are kept of it."""
    try:
        return compressed(canonical_bytes(verdict.model_dump(mode="json", exclude_unset=True)))
    except (ValueError, TypeError, RecursionError) as error:
        where = f"the verdict on run '{verdict.original}'"
        raise DamagedRun(where, f"{type(error).__name__}: {error}") from error


def unpack_verdict(data: bytes) -> Verdict:
    """Read a verdict back."""
    return Verdict.model_validate_json(expanded(data))


def compressed(data: bytes) -> bytes:
    """Make JSON smaller where that pays."""
    return data if len(data) < _UNCOMPRESSED_BYTES else zlib.compress(data, 1)


def expanded(data: bytes) -> bytes:
    """Undo `compressed`: JSON begins with a brace, which zlib never does."""
    return data if data[:1] == b"{" else zlib.decompress(data)


def _pack_run(manifest: Manifest, seen: _Seen) -> PackedRun:
    try:
        _check_keys(manifest)
        packed = PackedRun(row=_listed(manifest))
        document = manifest.model_dump(
            mode="json", by_alias=True, exclude_unset=True, exclude=_HEAVY
        )
        encoded = _encode(manifest, seen)
        _put_sections(document, None, manifest.sections, encoded, packed)
        for name, process in manifest.processes.items():
            if "sections" in process.model_fields_set:
                holder = document["processes"][name]
                _put_sections(holder, name, process.sections, {}, packed)
        if encoded and manifest.digests == {name: key for name, (key, _) in encoded.items()}:
            del document["digests"]
            document[_DIGESTS_LEFT_OUT] = True
        packed.row["document"] = compressed(canonical_bytes(document))
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedRun(f"run '{manifest.id[:36]}'", f"{type(error).__name__}: {error}") from error
    return packed


_Encoded: TypeAlias = tuple[Digest, bytes]
_Seen: TypeAlias = dict[str, tuple[Section, _Encoded]]

_HEAVY: Any = {"sections": True, "digest": True, "processes": {"__all__": {"sections"}}}
_DIGESTS_LEFT_OUT = "digests left out"


def _check_keys(manifest: Manifest) -> None:
    for run_id in (manifest.id, manifest.replay_of):
        if run_id is not None and not _ID.fullmatch(run_id):
            raise ValueError(f"expected a run id such as new_run_id() makes, found {run_id!r}")
    if manifest.digest:
        checked_digest(manifest.digest)


def _listed(manifest: Manifest) -> dict[str, object]:
    # The outcome is kept with its verdict, which has an order of its own.
    return {**summarize(manifest).model_dump(exclude={"outcome"}), "digest": manifest.digest}


def _encode(manifest: Manifest, seen: _Seen) -> dict[str, _Encoded]:
    encoded = {}
    for name, section in manifest.sections.items():
        expected = manifest.digests.get(name, "")
        known = seen.get(expected)
        # Comparing is several times quicker than encoding, and most runs share most sections.
        if known is not None and known[0] == section:
            encoded[name] = known[1]
            continue
        found, body = encoded[name] = _encoded(section)
        if expected and found != expected:
            raise DigestMismatch(expected, found, f"section '{name}' of run {manifest.id}")
        seen[found] = section, (found, body)
    return encoded


def _encoded(section: Section) -> _Encoded:
    body = canonical_bytes(section)
    return digest_bytes(body), body


def _put_sections(
    holder: dict[str, Any],
    process: str | None,
    sections: dict[str, Section],
    encoded: dict[str, _Encoded],
    packed: PackedRun,
) -> None:
    inline = holder["sections"] = {}
    for name, section in sections.items():
        if not packed.row["digest"] or not _is_shareable(process, name):
            inline[name] = section
            continue
        digest, body = encoded.get(name) or _encoded(section)
        packed.sections[digest] = body
        packed.references.append(
            {
                "run_id": packed.row["id"],
                "process": process or "",
                "name": name,
                "digest": digest,
            }
        )


def _is_shareable(process: str | None, name: str) -> bool:
    # PostgreSQL cannot key by just any text; a section of such a name stays in the document.
    names = (name,) if process is None else (name, process)
    return name not in _OWN and all(_NAME.fullmatch(text) for text in names)
