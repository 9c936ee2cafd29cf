"""The page of runs, on both databases."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from manifest.models import Manifest
from manifest_server.sqlstore import SqlStore
from manifest_server.web.runs import PAGE_RUNS

MakeManifest = Callable[..., Manifest]


def shown_ids(page: str) -> list[str]:
    return re.findall(r'<tr data-row data-id="([^"]+)"', page)


def test_an_empty_service_teaches_the_first_command(pages: TestClient) -> None:
    assert "manifest run -- python train.py" in pages.get("/").text


def test_every_run_is_on_one_page_or_an_older_one(
    pages: TestClient, runs: SqlStore, make_manifest: MakeManifest
) -> None:
    made = [make_manifest() for _ in range(PAGE_RUNS + 7)]
    runs.put_runs((each, None) for each in made)

    first = pages.get("/").text
    (older,) = re.findall(r'href="([^"]+)" rel="next"', first)
    second = pages.get(html.unescape(older)).text

    newest_first = sorted((each.id for each in made), reverse=True)
    assert shown_ids(first) + shown_ids(second) == newest_first
    assert 'rel="next"' not in second


def test_columns_show_what_was_captured_and_what_was_not(
    pages: TestClient, runs: SqlStore, make_manifest: MakeManifest
) -> None:
    runs.put_run(make_manifest(sections={"config": {"lr": 0.25}}))
    page = pages.get("/", params={"columns": "config.lr, config.momentum, steps"}).text
    cells = re.findall(r'<td class="cell">\s*<span class="(\w+)">([^<]*)</span>', page)
    assert cells == [("value", "0.25"), ("absent", "not set"), ("value", "36")]


def test_a_column_that_is_no_field_is_said_to_be_none(pages: TestClient) -> None:
    answer = pages.get("/", params={"columns": "config"})
    assert answer.status_code == 422
    assert "section.key" in answer.text


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("", 'status = "failed"'),
        ("config.lr > 0.1", 'config.lr > 0.1 and status = "failed"'),
        ("steps = 1 or steps = 2", '(steps = 1 or steps = 2) and status = "failed"'),
        ('status = "failed"', ""),
        ('status = "failed" and steps = 1', "steps = 1"),
    ],
)
def test_a_facet_adds_its_condition_and_takes_it_back(
    pages: TestClient, runs: SqlStore, make_manifest: MakeManifest, text: str, condition: str
) -> None:
    lr = {"config": {"lr": 0.5}}
    runs.put_runs(
        (make_manifest(status=status, sections=lr, processes=one_step()), None)
        for status in ("failed", "finished")
    )
    page = pages.get("/", params={"filter": text}).text
    (to,) = re.findall(r'<li><a href="([^"]+)"[^>]*><span>failed</span>', page)
    page = pages.get(html.unescape(to)).text
    (said,) = re.findall(r'name="filter" value="([^"]*)"', page)
    assert html.unescape(said) == condition
    assert shown_ids(page)


def one_step() -> dict[str, object]:
    return {"main": {"trail": {"steps": 1, "streams": ["loss"], "algorithm": "xxh3"}}}


@pytest.mark.parametrize(
    ("text", "word", "option"),
    [
        ("config.l", "config.l", "config.lr"),
        ("not (config.l", "config.l", "config.lr"),
        ("st", "st", "status"),
        ("config.lr > 0.1 a", "a", "and"),
        ("config.lr ", "", "is"),
    ],
)
def test_what_may_follow_is_known(
    pages: TestClient,
    runs: SqlStore,
    make_manifest: MakeManifest,
    text: str,
    word: str,
    option: str,
) -> None:
    runs.put_run(make_manifest(sections={"config": {"lr": 0.25}}))
    found = pages.get("/completions", params={"text": text}).json()
    assert found["word"] == word
    assert option in found["options"]


def test_who_is_bound_to_a_project_sees_no_other(
    guarded: TestClient, make_manifest: MakeManifest
) -> None:
    store: SqlStore = guarded.app.state.store  # type: ignore[attr-defined] # of FastAPI
    theirs = make_manifest(project="dogs", name="fido", sections={"config": {"bone": 1}})
    mine = make_manifest(project="cats", sections={"config": {"milk": 1}})
    store.put_runs([(theirs, None), (mine, None)])
    _, secret = store.create_token(name="me", scopes=["read"], project="cats")
    guarded.cookies.set("manifest_token", secret)

    for address in ("/", "/projects", "/completions?text=config.", "/about"):
        text = guarded.get(address).text
        assert not {"fido", "dogs", "bone", theirs.id} & set(re.findall(r"[\w-]+", text)), address
    assert shown_ids(guarded.get("/").text) == [mine.id]
    for address in (f"/compare?ids={mine.id},{theirs.id}", f"/compare.json?ids={theirs.id}"):
        assert guarded.get(address).status_code == 404
    assert guarded.get("/tokens").status_code == 403


def test_whoever_has_not_signed_in_is_sent_to_where_one_can(guarded: TestClient) -> None:
    answer = guarded.get('/?filter=name = "x"')
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/login?next=%2F%3Ffilter")
    assert guarded.get("/compare.json?ids=", headers={"Accept": "*/*"}).status_code == 401


def test_pages_run_nothing_that_is_not_theirs(pages: TestClient) -> None:
    policy = pages.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
