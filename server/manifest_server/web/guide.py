"""The guide: the documents of this version, and the settings that it knows, for those offline."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import chain
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup

from manifest.catalogue import all_settings
from manifest_server.problems import Problem
from manifest_server.web.templating import page

router = APIRouter(include_in_schema=False, prefix="/guide")

GROUPS: Final[Mapping[str, Sequence[str]]] = {
    "Start": ("start", "frameworks", "integrations", "captured", "replay"),
    "How to": (
        "determinism",
        "audit",
        "resume",
        "checkpoints",
        "exports",
        "migrating",
        "filters",
        "pages",
        "delivering",
    ),
    "Understand": ("why", "do-no-harm", "privacy"),
    "Reference": ("commands", "api", "configuration"),
    "Operate": ("service",),
}
"""The documents, by what one looks for, in the order in which one reads them."""

ORDER: Final = tuple(chain.from_iterable(GROUPS.values()))

_MOST_FOUND: Final = 50


@dataclass(frozen=True, slots=True)
class Document:
    """One document, as it is shown."""

    name: str
    title: str
    body: Markup
    headings: Sequence[tuple[str, str]]
    """The anchor and the words of each heading below the title."""
    sections: Sequence[tuple[str, str, str]]
    """What is searched: the anchor, the heading and the text below it."""


@router.get("")
def show_contents(request: Request, q: Annotated[str, Query(max_length=200)] = "") -> Response:
    """All documents, or the places in them where words stand."""
    found = list(_found(q)) if q.strip() else []
    return page(request, "guide.html", groups=_groups(), q=q, found=found[:_MOST_FOUND])


@router.get("/settings")
def show_settings(request: Request) -> Response:
    """Every setting that is known, with what it decides and who says so."""
    return page(request, "settings.html", groups=_groups(), settings=all_settings())


@router.get("/{name}")
def show_document(request: Request, name: str) -> Response:
    """One document."""
    for document in _documents():
        if document.name == name:
            return page(request, "document.html", groups=_groups(), document=document)
    raise Problem(404, "not-found", "the guide has no such page")


@cache
def _groups() -> dict[str, list[Document]]:
    documents = {document.name: document for document in _documents()}
    return {title: [documents[name] for name in names] for title, names in GROUPS.items()}


@cache
def _documents() -> tuple[Document, ...]:
    return tuple(map(_document, ORDER))


def _document(name: str) -> Document:
    text = (files("manifest_server.web") / "guide" / f"{name}.md").read_text(encoding="utf-8")
    markdown = _markdown()
    tokens = markdown.parse(text)
    sections = list(_sections(tokens))
    _point_within(tokens)
    rendered = markdown.renderer.render(tokens, markdown.options, {})
    # Where a block scrolls, the keyboard can scroll it.
    body = Markup(rendered.replace("<pre>", '<pre tabindex="0">'))  # noqa: S704 -- our own
    title = sections[0][1]
    headings = [(anchor, words) for anchor, words, _ in sections[1:]]
    return Document(name, title, body, headings, sections)


def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}, renderer_cls=RendererHTML).enable("table")


def _sections(tokens: Sequence[Token]) -> Iterator[tuple[str, str, str]]:
    """Cut a document at its headings, which are given anchors."""
    anchor, heading, texts = "", "", list[str]()
    for number, token in enumerate(tokens):
        if token.type == "heading_open":
            if heading:
                yield anchor, heading, " ".join(texts)
            heading, texts = tokens[number + 1].content.replace("`", ""), []
            anchor = anchor_of(heading)
            token.attrSet("id", anchor)
        elif token.type in ("inline", "fence") and tokens[number - 1].type != "heading_open":
            texts.append(token.content)
    yield anchor, heading, " ".join(texts)


def anchor_of(heading: str) -> str:
    """The anchor of a heading; of letters and digits alone, what GitHub makes of it too."""
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def _point_within(tokens: Sequence[Token]) -> None:
    """Let links to other documents lead to their pages, and those out of the guide nowhere."""
    for token in tokens:
        for child in token.children or ():
            if child.type == "link_open":
                child.attrs = {"href": _address(str(child.attrGet("href")))}
        if token.type == "table_open":
            token.attrSet("tabindex", "0")


def _address(target: str) -> str:
    if "://" in target or target.startswith("#"):
        return target
    name, _, anchor = target.partition("#")
    name = name.removesuffix(".md")
    return f"/guide/{name}{'#' + anchor if anchor else ''}" if name in ORDER else "/guide"


def _found(words: str) -> Iterator[dict[str, Any]]:
    wanted = words.lower().split()
    for document in _documents():
        for anchor, heading, text in document.sections:
            whole = f"{document.title} {heading} {text}".lower()
            if all(word in whole for word in wanted):
                yield {
                    "address": f"/guide/{document.name}#{anchor}",
                    "title": document.title,
                    "heading": heading,
                    "excerpt": _excerpt(text, wanted[0]),
                }
    for setting in all_settings():
        whole = f"{setting.key} {setting.reason}".lower()
        if all(word in whole for word in wanted):
            yield {
                "address": f"/guide/settings#{setting.key}",
                "title": "Settings",
                "heading": setting.key,
                "excerpt": setting.reason,
            }


def _excerpt(text: str, word: str) -> str:
    place = max(0, text.lower().find(word) - 80)
    return ("…" if place else "") + " ".join(text[place : place + 240].split()) + "…"
