"""Signing in, in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from manifest_migrations.upgrade import open_store
from manifest_server.database import sqlite_url

Open = Callable[..., Page]
Serve = Any  # the class is that of the fixture


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, serve: Serve
) -> Iterator[tuple[str, dict[str, str]]]:
    """A service that asks for tokens, and one that may read and one that may everything."""
    home = tmp_path_factory.mktemp("guarded")
    database = sqlite_url(home / "store.db").render_as_string()
    with open_store(database) as store:
        _, reader = store.create_token(name="reader", scopes=["read"])
        _, admin = store.create_token(name="admin", scopes=["read", "write", "admin"])
    with serve(home, database, auth="tokens") as url:
        yield url, {"reader": reader, "admin": admin}


def sign_in(page: Page, secret: str) -> None:
    page.get_by_label("Token").fill(secret)
    page.get_by_role("button", name="Sign in").click()


def test_whoever_has_no_token_is_asked_for_one_and_goes_on_from_there(
    guarded: tuple[str, dict[str, str]], open_page: Open
) -> None:
    url, secrets = guarded
    page = open_page(f"{url}/projects")
    assert page.url.startswith(f"{url}/login")
    sign_in(page, "mft_wrong")
    expect(page.get_by_role("alert")).to_contain_text("unknown")
    sign_in(page, secrets["reader"])
    page.wait_for_url(f"{url}/projects")
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    page.get_by_role("button", name="Sign out").click()
    page.goto(f"{url}/projects")
    assert page.url.startswith(f"{url}/login")


def test_nobody_is_sent_elsewhere(guarded: tuple[str, dict[str, str]], open_page: Open) -> None:
    url, secrets = guarded
    for elsewhere in ("https://example.org/", "//example.org/", "/\\example.org", "javascript:1"):
        page = open_page(f"{url}/login?next={elsewhere}")
        sign_in(page, secrets["reader"])
        page.wait_for_url(f"{url}/")


def test_tokens_are_made_shown_once_and_revoked(
    guarded: tuple[str, dict[str, str]], open_page: Open
) -> None:
    url, secrets = guarded
    page = open_page(f"{url}/login?next=/tokens")
    sign_in(page, secrets["admin"])
    page.get_by_label("Name").fill("cluster")
    page.get_by_role("button", name="Make a token").click()
    made = page.get_by_role("status").filter(has_text="mft_")
    expect(made).to_be_visible()
    page.goto(f"{url}/tokens")
    expect(made).to_have_count(0)
    page.get_by_role("button", name="Revoke cluster").click()
    expect(page.get_by_role("row").filter(has_text="cluster").first).to_contain_text("revoked")
    expect(page.get_by_role("row").filter(has_text="revoke token")).to_be_visible()


def test_who_may_not_administer_sees_no_tokens(
    guarded: tuple[str, dict[str, str]], open_page: Open
) -> None:
    url, secrets = guarded
    page = open_page(f"{url}/login?next=/tokens")
    sign_in(page, secrets["reader"])
    expect(page.get_by_role("heading", level=1)).to_have_text("Forbidden")


def test_another_site_changes_nothing(guarded: tuple[str, dict[str, str]], open_page: Open) -> None:
    url, secrets = guarded
    page = open_page(f"{url}/login")
    sign_in(page, secrets["admin"])
    page.wait_for_url(f"{url}/")
    answer = page.context.request.post(
        f"{url}/tokens",
        form={"name": "theirs", "scope": "admin"},
        headers={"Origin": "https://example.org"},
    )
    assert answer.status == 403
    page.goto(f"{url}/tokens")
    expect(page.get_by_role("row").filter(has_text="theirs")).to_have_count(0)
