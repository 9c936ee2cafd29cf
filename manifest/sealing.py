"""A sealed manifest: the digests that it carries, and whether they still hold.

Each section has its digest beside the sections, and the document has one over everything else in
it. Together they say that a manifest is what was written when the run ended; not who wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from manifest.canonical import SCHEMA, Json, digest_bytes, digest_value
from manifest.errors import DamagedRun, NewerSchema

Document = dict[str, Any]

_Value = Callable[[str, int], tuple[Json, int]]
"""Reads what stands under a key from a place in the text on, and says where it ends."""

_decoded = json.JSONDecoder().raw_decode


def seal_document(document: Document) -> None:
    """Add the digests."""
    document["digests"] = {
        name: digest_value(section) for name, section in document["sections"].items()
    }
    document["digest"] = digest_value(document)


def read_sealed(data: bytes, where: str) -> Document:
    """Read a sealed document and check it.

    Args:
        data: JSON; in its canonical form it is checked without being encoded again.
        where: The name of the file, for messages.

    Raises:
        NewerSchema: Written by a newer version.
        DamagedRun: It is no document, or not the one that was sealed.
    """
    try:
        text = data.decode("utf-8")
        document, section_texts = _parsed(text)
        if not isinstance(document, dict) or not isinstance(document.get("schema"), int):
            raise DamagedRun(where, "it has no schema number")
        if document["schema"] > SCHEMA:
            raise NewerSchema(document["schema"], SCHEMA, where)
        fault = _fault(document, text, section_texts)
    except (ValueError, RecursionError) as error:
        raise DamagedRun(where, str(error)) from error
    if fault is not None:
        raise DamagedRun(where, fault)
    return document


def _fault(document: Document, text: str, section_texts: dict[str, str]) -> str | None:
    sections, digests = document.get("sections"), document.get("digests")
    if not (isinstance(sections, dict) and isinstance(digests, dict) and "digest" in document):
        return "it lacks the sections or the digests that it was sealed with"
    for name, section in sections.items():
        if not _is_named_by(digests.get(name), section_texts.get(name, ""), section):
            return f"its section '{name}' was changed after the run was sealed"
    rest = {key: value for key, value in document.items() if key != "digest"}
    if not _is_named_by(document["digest"], _without_digest(text, document["digest"]), rest):
        return "it was changed after the run was sealed"
    return None


def _is_named_by(digest: Json, text: str, value: Json) -> bool:
    # Text in canonical form is at hand already; whoever laid it out anew changed no value.
    return bool(digest_bytes(text.encode()) == digest) or bool(digest_value(value) == digest)


def _without_digest(text: str, digest: Json) -> str:
    return "{" + text.removeprefix(f'{{"digest":"{digest}",').removesuffix("\n")


def _parsed(text: str) -> tuple[Json, dict[str, str]]:
    """The value of a text, and the text of each section in it if it is in canonical form."""
    section_texts: dict[str, str] = {}

    def section(name: str, start: int) -> tuple[Json, int]:
        value, end = _decoded(text, start)
        section_texts[name] = text[start:end]
        return value, end

    def member(key: str, start: int) -> tuple[Json, int]:
        return _map(text, start, section) if key == "sections" else _decoded(text, start)

    try:
        document, end = _map(text, 0, member)
    except (ValueError, IndexError):
        return json.loads(text), {}
    return (document, section_texts) if text[end:] == "\n" else (json.loads(text), {})


def _map(text: str, start: int, value: _Value) -> tuple[dict[str, Json], int]:
    """Read a map of canonical form, each value by `value`; also say where it ends."""
    found: dict[str, Json] = {}
    at, expected = start, "{"
    while text[at] == expected:
        key, colon = _decoded(text, at + 1)
        if not isinstance(key, str) or text[colon] != ":":
            break
        found[key], at = value(key, colon + 1)
        if text[at] == "}":
            return found, at + 1
        expected = ","
    raise ValueError(f"expected a map in canonical form, found {text[at : at + 20]!r}")
