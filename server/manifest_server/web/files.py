"""The page of one file that a run refers to: its source with line numbers, or something to save."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from markupsafe import Markup, escape
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import (
    BashLexer,
    IniLexer,
    JsonLexer,
    PythonLexer,
    TOMLLexer,
    YamlLexer,
)

from manifest.canonical import Json, checked_digest
from manifest.describing import shown
from manifest.errors import BlobNotFound
from manifest.models import Manifest
from manifest_server.api.blobs import attachment, length
from manifest_server.api.parameters import Digest, RunId
from manifest_server.blobs import KeptBlob
from manifest_server.callers import Caller
from manifest_server.dependencies import Store, visible
from manifest_server.sqlstore import SqlStore
from manifest_server.web.templating import page
from manifest_server.web.visitors import Visitor

router = APIRouter(include_in_schema=False)

LARGEST_SHOWN_BYTES: Final = 2**20
PATCH: Final = "uncommitted.patch"
"""What the uncommitted change of a run is called."""

_LARGEST_COLOURED_BYTES: Final = 2**17  # the worst of texts of this size takes a second or two
_LONGEST_COLOURED_LINE: Final = 2000
_NAMES_OF_FACTS: Final = frozenset({"blob", "sha256"})
# Lexers that no text of this size makes slow; that of C++ is not one of them.
_LEXERS: Final[Mapping[str, type[Lexer]]] = {
    ".py": PythonLexer,
    ".pyi": PythonLexer,
    ".sh": BashLexer,
    ".toml": TOMLLexer,
    ".json": JsonLexer,
    ".yaml": YamlLexer,
    ".yml": YamlLexer,
    ".ini": IniLexer,
    ".cfg": IniLexer,
}

FileName = Annotated[str, Query(max_length=4000)]


@dataclass(frozen=True, slots=True)
class File:
    """A blob that a run refers to, under a name that the run gives it."""

    name: str
    blob: KeptBlob


@router.get("/runs/{run_id}/files/{digest}")
def show_file(
    request: Request,
    run_id: RunId,
    digest: Digest,
    *,
    store: Store,
    visitor: Visitor,
    name: FileName = "",
) -> Response:
    """What a file held when the run read it, for people to read."""
    manifest = visible(store, visitor, run_id)
    file = _find(store, visitor, manifest, digest, name)
    text = read_text(store, file.blob)
    return page(
        request,
        "file.html",
        run=manifest,
        file=file,
        lines=None if text is None else _coloured(file.name, text),
        is_patch=file.name.endswith((".patch", ".diff")),
    )


@router.get("/runs/{run_id}/files/{digest}/raw")
def download_file(
    run_id: RunId, digest: Digest, store: Store, visitor: Visitor, name: FileName = ""
) -> Response:
    """The bytes of a file, to be saved."""
    file = _find(store, visitor, visible(store, visitor, run_id), digest, name)
    harmless = re.sub(r"[^A-Za-z0-9._-]", "_", PurePosixPath(file.name).name)[-100:]
    headers = attachment(file.blob, harmless) | length(file.blob)
    return StreamingResponse(store.blobs.read(file.blob), headers=headers)


def named_files(manifest: Manifest) -> dict[str, list[str]]:
    """The names that a run gives to each blob it refers to, by digest."""
    found: dict[str, list[str]] = {}
    for sections in (manifest.sections, *(each.sections for each in manifest.processes.values())):
        for name, digest in _named("", sections):
            names = found.setdefault(digest, [])
            if name not in names:
                names.append(name)
    return found


def read_text(store: SqlStore, blob: KeptBlob, most: int = LARGEST_SHOWN_BYTES) -> str | None:
    """What a blob says, made harmless; None where it is no text, or more than anyone reads."""
    if blob.size > most:
        return None
    content = b"".join(store.blobs.read(blob))
    if b"\0" in content:
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return _harmless(text)


def _find(store: SqlStore, visitor: Caller, manifest: Manifest, digest: str, name: str) -> File:
    # Under no name but the run's own: an address is no place to say what a file is.
    names = named_files(manifest).get(digest)
    if not names:
        raise BlobNotFound(digest)
    blob = store.blobs.find(digest, project=visitor.project)
    return File(name if name in names else names[0], blob)


def _named(name: str, value: Json) -> Iterator[tuple[str, str]]:
    pending = [(name, value)]
    while pending:
        name, value = pending.pop()
        if isinstance(value, dict):
            pending += (
                (name if key in _NAMES_OF_FACTS else key, inner) for key, inner in value.items()
            )
        elif isinstance(value, list):
            pending += ((name, inner) for inner in value)
        elif isinstance(value, str) and value.startswith("sha256:") and _is_digest(value):
            yield (PATCH if name == "git.patch" else name), value


def _is_digest(text: str) -> bool:
    try:
        checked_digest(text)
    except ValueError:
        return False
    return True


def _harmless(text: str) -> str:
    text = text.replace("\r\n", "\n")
    if text.isprintable():
        return text
    # Also of what reverses the direction of text: code must read as it runs.
    return "\n".join("\t".join(map(shown, line.split("\t"))) for line in text.split("\n"))


def _coloured(name: str, text: str) -> list[Markup]:
    lexer = _LEXERS.get(PurePosixPath(name).suffix.lower())
    lines = text.removesuffix("\n").split("\n")
    is_long = len(text) > _LARGEST_COLOURED_BYTES or any(
        len(line) > _LONGEST_COLOURED_LINE for line in lines
    )
    if lexer is None or is_long:
        return [escape(line) for line in lines]
    coloured = highlight(text, lexer(stripnl=False), HtmlFormatter(nowrap=True))
    return [Markup(line) for line in coloured.removesuffix("\n").split("\n")]  # noqa: S704 -- escaped by Pygments
