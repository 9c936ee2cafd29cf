"""The pages that show the API ask nobody else for anything."""

from __future__ import annotations

import re

import pytest
from starlette.testclient import TestClient

from manifest_server.api.docs import POLICY


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_a_page_loads_only_from_here_and_runs_nothing_inline(
    simple_client: TestClient, page: str
) -> None:
    answer = simple_client.get(page)

    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == POLICY
    loaded = re.findall(r'(?:src|href)="([^"]*)"', answer.text)
    assert len(loaded) >= 3
    assert [simple_client.get(f"/{path}").status_code for path in loaded] == [200] * len(loaded)
    assert re.findall(r"<script>|<style|\son\w+=|https?:", answer.text) == []


def test_the_policy_lets_nothing_be_asked_of_others() -> None:
    sources = " ".join(part.partition(" ")[2] for part in POLICY.replace("; ", ";").split(";"))
    assert set(sources.split()) == {"'none'", "'self'", "'unsafe-inline'", "data:", "blob:"}
    assert "script-src 'self';" in POLICY


@pytest.mark.parametrize("name", ["..%2f__init__.py", "../core.py", "core.py", "%00", "x.js"])
def test_nothing_else_is_handed_out(simple_client: TestClient, name: str) -> None:
    assert simple_client.get(f"/docs/{name}").status_code == 404


def test_the_pages_show_the_description(simple_client: TestClient) -> None:
    for name in ("start-swagger.js", "start-redoc.js"):
        (address,) = re.findall(r"'(api/[^']*)'", simple_client.get(f"/docs/{name}").text)
        assert simple_client.get(f"/{address}").json()["openapi"].startswith("3.")
