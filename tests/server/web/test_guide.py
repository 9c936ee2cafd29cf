"""The guide: every document is whole, and what it says of filters can be read."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from manifest.catalogue import all_settings
from manifest.filtering import parse_filter
from manifest_server.app import create_app
from manifest_server.settings import ServerSettings
from manifest_server.web.guide import ORDER


@pytest.fixture(scope="module")
def guide() -> TestClient:
    """A client of a service that asks for tokens, and whose database nobody has opened."""
    settings = ServerSettings(database_url="sqlite:///nowhere/store.db", auth="tokens")
    return TestClient(create_app(settings), base_url="http://localhost")


def test_every_document_is_in_it(checkout: Path) -> None:
    assert {path.stem for path in (checkout / "docs").glob("*.md")} == set(ORDER)


def test_every_link_within_leads_to_a_place_that_is_there(guide: TestClient) -> None:
    pages = {f"/guide/{name}": guide.get(f"/guide/{name}").text for name in (*ORDER, "settings")}
    pages["/guide"] = guide.get("/guide").text
    links = {
        (path, unescape(link))
        for path, text in pages.items()
        for link in re.findall(r'href="((?:/guide|#)[^"]*)"', text)
        if link != "#main"
    }
    assert len(links) > 50
    for path, link in links:
        target, _, anchor = link.partition("#")
        text = pages[target or path]
        assert not anchor or f'id="{anchor}"' in text, (path, link)


def test_it_is_searched(guide: TestClient) -> None:
    found = guide.get("/guide", params={"q": "hash SEED"}).text
    assert '<a href="/guide/settings#hash_seed">hash_seed</a>' in found
    assert "/guide/replay#the-moments" in found
    assert "Nothing says" in guide.get("/guide", params={"q": "xyzzy"}).text
    assert "<script>x" not in guide.get("/guide", params={"q": "<script>x"}).text


def test_every_setting_has_its_reason_there(guide: TestClient) -> None:
    text = guide.get("/guide/settings").text
    assert text.count("<tr data-item") == len(all_settings())


def test_what_is_not_there_is_said(guide: TestClient) -> None:
    for name in ("nothing", "..%2f..%2fREADME", "replay.md"):
        assert guide.get(f"/guide/{name}").status_code == 404


@pytest.mark.parametrize("name", ["filters", "pages"])
def test_filters_that_are_shown_can_be_read(checkout: Path, name: str) -> None:
    text = (checkout / "docs" / f"{name}.md").read_text(encoding="utf-8")
    filters = [
        line
        for block in re.findall(r"```text\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
    ]
    assert len(filters) >= 3
    for line in filters:
        parse_filter(line)
