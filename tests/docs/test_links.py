"""Links of documents lead somewhere; those out of the repository are read, not followed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from markdown_it import MarkdownIt

from manifest_server.web.guide import GROUPS, anchor_of


def documents(checkout: Path) -> list[Path]:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "*.md"]
    names = subprocess.run(listed, cwd=checkout, capture_output=True, text=True, check=True)
    return [checkout / name for name in names.stdout.split()]


def links_of(text: str) -> list[str]:
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inline = [child for token in tokens for child in token.children or ()]
    found = [child.attrGet("href") or child.attrGet("src") for child in inline]
    return [str(link) for link in found if link]


def anchors_of(path: Path) -> set[str]:
    tokens = MarkdownIt("commonmark").parse(path.read_text(encoding="utf-8"))
    return {
        anchor_of(tokens[number + 1].content)
        for number, token in enumerate(tokens)
        if token.type == "heading_open"
    }


@pytest.fixture(scope="module")
def links(checkout: Path) -> list[tuple[Path, str]]:
    return [
        (path, link)
        for path in documents(checkout)
        for link in links_of(path.read_text(encoding="utf-8"))
    ]


def test_links_within_lead_to_files_and_headings_that_are_there(
    links: list[tuple[Path, str]],
) -> None:
    within = [(path, link) for path, link in links if "://" not in link]
    assert len(within) > 30
    for path, link in within:
        name, _, anchor = link.partition("#")
        target = (path.parent / name) if name else path
        assert target.exists(), (path, link)
        assert not anchor or anchor in anchors_of(target), (path, link)


def test_links_without_are_whole_addresses(links: list[tuple[Path, str]]) -> None:
    for path, link in links:
        if "://" in link:
            parts = urlsplit(link)
            assert parts.scheme == "https", (path, link)
            assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc), (path, link)


def test_documents_are_found_from_the_readme(checkout: Path, links: list[tuple[Path, str]]) -> None:
    """In the repository there is no navigation but links."""
    graph: dict[Path, set[Path]] = {}
    for path, link in links:
        if "://" not in link:
            graph.setdefault(path, set()).add((path.parent / link.partition("#")[0]).resolve())
    reached, new = set[Path](), {checkout / "README.md"}
    while new:
        reached |= new
        new = {target for path in new for target in graph.get(path, ())} - reached
    assert {
        checkout / "docs" / f"{name}.md" for names in GROUPS.values() for name in names
    } <= reached
