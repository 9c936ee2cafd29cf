"""Runs are gathered by what they have, and each is there once, whoever comes and goes."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from manifest.filtering import Field, parse_filter
from manifest.models import Annotations, Manifest
from manifest_migrations.upgrade import downgrade, open_store
from manifest_server import gathering
from manifest_server.database import transaction
from manifest_server.holders import MOST_TOGETHER
from manifest_server.sqlstore import SqlStore
from manifest_server.tables import fresh_terms, run_terms

MakeManifest = Callable[..., Manifest]

OPTIMIZER = Field("config", "optimizer")


@pytest.fixture(autouse=True, params=["in portions", "at once"])
def how_terms_are_put_away(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "at once":
        monkeypatch.setattr(gathering, "_FRESH", 1)


def count_rows(store: SqlStore) -> int:
    with transaction(store._engine) as connection:
        return connection.scalar(select(func.count()).select_from(run_terms)) or 0


def some(make_manifest: MakeManifest, count: int) -> list[Manifest]:
    return [
        make_manifest(sections={"config": {"optimizer": ("sgd", "adam")[number % 2]}})
        for number in range(count)
    ]


def put_late(store: SqlStore, runs: list[Manifest]) -> None:
    """Keep runs, most of which come when what they have is known."""
    for some_of_them in (runs[:2], runs[2:]):
        store.put_runs((run, None) for run in some_of_them)


def assert_has(store: SqlStore, kept: list[Manifest]) -> None:
    for name in ("sgd", "adam"):
        held = [run.id for run in kept if run.sections["config"]["optimizer"] == name]
        wanted = parse_filter(f'config.optimizer = "{name}"')
        found = [run.id for run in store.list_runs(wanted=wanted, limit=5000)]
        assert found == sorted(held, reverse=True)
        and_more = parse_filter(f'config.optimizer = "{name}" and settings.torch.setting_3 = 3')
        assert [run.id for run in store.list_runs(wanted=and_more, limit=5)] == found[:5]
        counts = {each.value: each.runs for each in store.count_values(OPTIMIZER, project="digits")}
        assert counts.get(name, 0) == len(held)


def test_terms_are_put_away_after_some_thousands(
    store: SqlStore, make_manifest: MakeManifest
) -> None:
    keys = {f"key-{number}": number for number in range(100)}
    runs = [
        make_manifest(
            id=f"01990000-0000-7000-8000-{number:012x}",  # by which it is decided when
            sections={"config": {**keys, "optimizer": ("sgd", "adam")[number % 2]}},
        )
        for number in range(200)
    ]
    for start in range(0, len(runs), 10):
        store.put_runs((run, None) for run in runs[start : start + 10])

    with transaction(store._engine) as connection:
        fresh = connection.scalar(select(func.count()).select_from(fresh_terms)) or 0
    assert fresh < len(runs) // 2
    assert_has(store, runs)


def test_runs_that_come_one_by_one_are_gathered(
    store: SqlStore, make_manifest: MakeManifest
) -> None:
    runs = [
        make_manifest(
            id=f"01990000-0000-7000-8000-{number:012x}",
            sections={"config": {"optimizer": ("sgd", "adam")[number // 130]}},
        )
        for number in range(260)
    ]
    for run in runs:
        store.put_run(run)

    assert_has(store, runs)
    assert count_rows(store) < 100


def test_what_a_schema_of_before_left_scattered_is_gathered_with_the_rest(
    database_url: str, make_manifest: MakeManifest
) -> None:
    runs = some(make_manifest, 300)
    with open_store(database_url) as store:
        store.put_runs((run, None) for run in runs)
        store.collect()
    downgrade(database_url, "0007")
    with open_store(database_url) as store:
        assert count_rows(store) == 300
        store.collect()
        assert count_rows(store) == 2 * -(-150 // MOST_TOGETHER)
        assert_has(store, runs)


def test_whoever_goes_is_gone_and_the_others_stay(
    store: SqlStore, make_manifest: MakeManifest
) -> None:
    runs, more = some(make_manifest, 220), some(make_manifest, 30)
    put_late(store, runs)
    random.Random(8).shuffle(runs)
    for coming in ([], more, []):
        for run in runs[:50]:
            store.delete_run(run.id)
        runs = [*runs[50:], *coming]
        store.put_runs((run, None) for run in coming)
        assert_has(store, runs)
    store.collect()
    assert_has(store, runs)
    for run in runs:
        store.delete_run(run.id)
    assert count_rows(store) == 0


def test_a_tag_is_taken_from_among_those_of_many(
    store: SqlStore, make_manifest: MakeManifest
) -> None:
    runs = some(make_manifest, 100)
    store.put_runs((run, None) for run in runs)
    said = {run.id: store.put_annotations(run.id, Annotations(tags={"a": "b"})) for run in runs}
    middle, last = runs[50].id, max(run.id for run in runs)

    for run_id in (middle, last):
        store.put_annotations(run_id, said[run_id].model_copy(update={"tags": {"a": "c"}}))
        store.collect()  # the first is among those that came lately, the second among all

    def tagged(value: str) -> set[str]:
        wanted = parse_filter(f'tags.a = "{value}"')
        return {run.id for run in store.list_runs(wanted=wanted, limit=500)}

    assert tagged("c") == {middle, last}
    assert tagged("b") == {run.id for run in runs} - {middle, last}


def test_what_only_a_run_that_came_lately_has_is_there(
    store: SqlStore, make_manifest: MakeManifest
) -> None:
    first, late = (
        make_manifest(sections={"config": {"optimizer": "sgd", "only": number}})
        for number in (1, 1)
    )
    for run in (first, late):
        store.put_run(run)
    store.delete_run(first.id)

    for _ in range(2):
        assert store.list_fields("config.", limit=9, project="digits") == [
            "config.only",
            "config.optimizer",
        ]
        assert_has(store, [late])
        store.collect()


def test_a_run_that_two_bring_at_once_is_counted_once(
    database_url: str, make_manifest: MakeManifest
) -> None:
    runs = some(make_manifest, 60)
    with open_store(database_url) as first, SqlStore.open(database_url) as second:

        def bring(store: SqlStore) -> None:
            for run in runs:
                store.put_run(run)

        with ThreadPoolExecutor() as pool:
            for done in [pool.submit(bring, store) for store in (first, second)]:
                done.result()
        assert_has(first, runs)


def test_nobody_is_lost_while_some_come_and_others_go(
    database_url: str, make_manifest: MakeManifest
) -> None:
    staying, going, coming = (some(make_manifest, 120) for _ in range(3))
    with open_store(database_url) as first, SqlStore.open(database_url) as second:
        first.put_runs((run, None) for run in (*staying, *going))

        def come() -> None:
            for start in range(0, 120, 6):
                first.put_runs((run, None) for run in coming[start : start + 6])

        def go() -> None:
            for run in going:
                second.delete_run(run.id)

        def gather() -> None:
            for _ in range(10):
                second.collect()

        with ThreadPoolExecutor() as pool:
            for done in [pool.submit(work) for work in (come, go, gather)]:
                done.result()
        assert_has(first, [*staying, *coming])
