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
    cells = re.findall(
        r'<td class="cell" data-label="[^"]+">\s*<span class="(\w+)">([^<]*)</span>', page
    )
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


def test_runs_are_sorted_by_any_column_and_those_without_a_value_are_last(
    pages: TestClient, runs: SqlStore, make_manifest: MakeManifest
) -> None:
    made = {
        lr: make_manifest(sections={"config": {"lr": lr} if lr is not None else {}})
        for lr in (0.1, 10, None, "auto", 2.5)
    }
    runs.put_runs((each, None) for each in made.values())
    ascending = [made[lr].id for lr in (0.1, 2.5, 10, "auto", None)]
    descending = [made[lr].id for lr in ("auto", 10, 2.5, 0.1, None)]
    assert shown_ids(pages.get("/", params={"sort": "config.lr"}).text) == ascending
    page = pages.get("/", params={"sort": "-config.lr", "columns": "config.lr"}).text
    assert shown_ids(page) == descending
    assert 'aria-sort="descending"' in page
    assert "All 5 that fit, by config.lr" in page


def test_runs_are_sorted_by_how_long_they_took(
    pages: TestClient, runs: SqlStore, make_manifest: MakeManifest
) -> None:
    began = "2026-01-01T08:00:00.000000Z"
    made = [
        make_manifest(started_at=began, ended_at=f"2026-01-01T08:{minutes:02}:00.000000Z")
        for minutes in (5, 20, 1)
    ]
    made.append(make_manifest(is_sealed=False, started_at=began))
    runs.put_runs((each, None) for each in made)
    expected = [made[place].id for place in (1, 0, 2, 3)]
    assert shown_ids(pages.get("/", params={"sort": "-took"}).text) == expected


def test_a_sorted_page_says_among_how_many_it_sorted(
    pages: TestClient, runs: SqlStore, make_manifest: MakeManifest
) -> None:
    runs.put_runs((make_manifest(), None) for _ in range(PAGE_RUNS + 3))
    page = pages.get("/", params={"sort": "steps"}).text
    assert f"{PAGE_RUNS} of {PAGE_RUNS + 3} that fit, by steps" in page


def test_what_is_no_field_is_no_order(pages: TestClient) -> None:
    assert pages.get("/", params={"sort": "-nothing.at all"}).status_code == 422


def test_columns_are_completed_with_fields_alone(
    pages: TestClient, runs: SqlStore, make_manifest: MakeManifest
) -> None:
    runs.put_run(make_manifest(sections={"config": {"lr": 0.1, "layers": 2}}))
    asked = {"text": "steps,config.l", "of": "columns"}
    assert pages.get("/completions", params=asked).json() == {
        "word": "config.l",
        "options": ["config.layers", "config.lr"],
    }
    none = pages.get("/completions", params={"text": "config.lr ", "of": "columns"})
    assert none.json()["options"] == []


def test_a_long_command_is_cut_short(
    pages: TestClient, runs: SqlStore, make_manifest: MakeManifest
) -> None:
    argv = ["/usr/bin/python", "train.py", *["word"] * 400]
    run = make_manifest(sections={"command": {"argv": argv}})
    runs.put_run(run)

    (shown,) = re.findall(r"<code>(python [^<]*)</code>", pages.get("/").text)
    assert len(shown) == 201
    assert shown.endswith("…")
    assert "word " * 399 in pages.get(f"/runs/{run.id}").text
