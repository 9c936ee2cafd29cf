"""The page of several runs side by side, on both databases."""

from __future__ import annotations

import re
from collections.abc import Callable

from fastapi.testclient import TestClient

from manifest.models import Manifest
from manifest_server.sqlstore import SqlStore

MakeManifest = Callable[..., Manifest]


def put(runs: SqlStore, make_manifest: MakeManifest, *configs: dict[str, object]) -> list[str]:
    made = [make_manifest(sections={"config": config}) for config in configs]
    runs.put_runs((each, None) for each in made)
    return [each.id for each in made]


def rows(page: str) -> dict[str, list[str]]:
    """The text of the cells of each row, by key."""
    found = {}
    for row in re.findall(r"<tr data-item>(.*?)</tr>", page, re.DOTALL):
        cells = [
            " ".join(re.sub(r"<[^>]+>", " ", each).split())
            for each in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
        ]
        found[cells[0]] = cells[1:]
    return found


def test_only_what_differs_is_shown_the_gravest_first(
    pages: TestClient, runs: SqlStore, make_manifest: MakeManifest
) -> None:
    ids = put(runs, make_manifest, {"lr": 0.1, "same": 1}, {"lr": 0.2, "same": 1})
    page = pages.get("/compare", params={"ids": ",".join(ids)}).text
    assert rows(page)["config lr"][:2] == ["0.1", "0.2"]
    assert "config same" not in rows(page)
    impacts = re.findall(r'<span class="impact (\w+)"', page)
    order = ["certain", "possible", "unknown", "performance", "informational"]
    assert impacts == sorted(impacts, key=order.index)


def test_what_is_as_in_the_baseline_is_marked_so(
    pages: TestClient, runs: SqlStore, make_manifest: MakeManifest
) -> None:
    ids = put(runs, make_manifest, {"lr": 0.1}, {"lr": 0.1}, {"lr": 0.3})
    page = pages.get("/compare", params={"ids": ids}).text
    assert rows(page)["config lr"][:3] == ["0.1", "=", "0.3"]


def test_columns_bear_the_names_of_the_runs_or_else_their_ids(
    pages: TestClient, runs: SqlStore, make_manifest: MakeManifest
) -> None:
    first, second = (
        make_manifest(name=name, sections={"config": {"lr": rate}})
        for name, rate in (("quick <b>", 0.1), (None, 0.2))
    )
    runs.put_runs((each, None) for each in (first, second))
    page = pages.get("/compare", params={"ids": f"{first.id},{second.id}"}).text
    heads = re.findall(r'<div class="ellipsis">(\d · [^<]+)</div>', page)
    assert heads == ["1 · quick &lt;b&gt;", f"2 · {second.id[:13]}"]


def test_values_of_other_types_are_not_as_in_the_baseline(
    pages: TestClient, runs: SqlStore, make_manifest: MakeManifest
) -> None:
    values: list[object] = [1, True, 1.0, 1]
    ids = put(runs, make_manifest, *({"lr": value, "betas": [value]} for value in values))
    page = pages.get("/compare", params={"ids": ids}).text
    assert rows(page)["config lr"][:4] == ["1", "True", "1.0", "="]
    assert rows(page)["config betas"][:4] == ["[1]", "[True]", "[1.0]", "="]


def test_each_of_many_leads_to_the_pair_with_its_changes(
    pages: TestClient, runs: SqlStore, make_manifest: MakeManifest
) -> None:
    ids = put(runs, make_manifest, {"lr": 0.1}, {"lr": 0.2}, {"lr": 0.3})
    page = pages.get("/compare", params={"ids": ids}).text
    pairs = re.findall(r'href="/compare\?ids=([^"]+)" aria-label="Compare', page)
    assert pairs == [f"{ids[0]},{other}" for other in ids[1:]]


def test_another_run_is_made_the_baseline(
    pages: TestClient, runs: SqlStore, make_manifest: MakeManifest
) -> None:
    ids = put(runs, make_manifest, {"lr": 0.1}, {"lr": 0.2})
    page = pages.get("/compare", params={"ids": ids}).text
    (to,) = re.findall(r'href="(/compare[^"]+)">make baseline', page)
    assert rows(pages.get(to).text)["config lr"][:2] == ["0.2", "0.1"]


def test_what_was_not_captured_looks_otherwise_than_what_is_not_set(
    pages: TestClient, runs: SqlStore, make_manifest: MakeManifest
) -> None:
    absent = {"environment": {"env.A": {"$absent": True}}, "hardware": {"cpu.model": "x"}}
    made = [make_manifest(sections=absent), make_manifest(sections={"environment": {"env.A": "y"}})]
    runs.put_runs((each, None) for each in made)
    page = pages.get("/compare", params={"ids": [each.id for each in made]}).text
    found = rows(page)
    assert found["environment env.A"][:2] == ["not set", "y"]
    assert found["hardware cpu.model"][:2] == ["x", "not captured"]


def test_programs_get_the_same(
    pages: TestClient, runs: SqlStore, make_manifest: MakeManifest
) -> None:
    ids = put(runs, make_manifest, {"lr": 0.1}, {"lr": 0.2}, {"lr": 0.3})
    two = pages.get("/compare.json", params={"ids": ids[:2]}).json()
    first = two["differences"][0]
    assert (first["key"], first["before"], first["after"]) == ("lr", 0.1, 0.2)
    three = pages.get("/compare.json", params={"ids": ids}).json()
    assert (three[0]["key"], three[0]["values"]) == ("lr", [0.1, 0.2, 0.3])


def test_what_cannot_be_compared_is_said(
    pages: TestClient, runs: SqlStore, make_manifest: MakeManifest
) -> None:
    (run_id,) = put(runs, make_manifest, {"lr": 0.1})
    assert "Two runs or more" in pages.get("/compare").text
    assert "Two runs or more" in pages.get("/compare", params={"ids": run_id}).text
    assert pages.get("/compare", params={"ids": f"{run_id},x"}).status_code == 422
    too_many = ",".join(f"{number:08x}-0000-7000-8000-000000000000" for number in range(51))
    assert pages.get("/compare", params={"ids": too_many}).status_code == 422
