"""What is deleted is gone, and what others refer to stays."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from manifest.errors import RunNotFound
from manifest.filtering import Field, parse_filter
from manifest.models import Annotations, Manifest
from manifest_server.database import transaction
from manifest_server.sqlstore import SqlStore
from manifest_server.tables import metadata

MakeManifest = Callable[..., Manifest]


def rows(store: SqlStore) -> dict[str, int]:
    with transaction(store._engine) as connection:
        return {
            name: connection.scalar(select(func.count()).select_from(table)) or 0
            for name, table in metadata.tables.items()
        }


def test_a_deleted_run_is_gone_with_all_that_was_its_own(
    store: SqlStore, make_manifest: MakeManifest
) -> None:
    ranks = {"main.x1": {"sections": {"settings": {"torch.num_threads": 9}}, "rank": 1}}
    kept, gone = (
        make_manifest(sections={"config": {"lr": 0.1}}),
        make_manifest(
            name="of its own",
            sections={"config": {"lr": 0.2}, "packages": {"old": "1"}},
            processes=ranks,
        ),
    )
    store.put_run(kept)
    store.collect()
    before = rows(store)
    store.put_run(gone)
    store.put_annotations(gone.id, Annotations(tags={"team": "nlp"}))

    store.delete_run(gone.id)
    assert store.collect() == 3  # two sections, and their setup

    assert rows(store) == before
    assert store.get_run(kept.id) == kept
    assert store.list_runs(wanted=parse_filter('config.lr = 0.2 or tags.team = "nlp"')) == []
    assert store.list_runs(wanted=parse_filter('name ~ "own"')) == []
    assert store.count_values(Field("packages", "old")) == []
    with pytest.raises(RunNotFound):
        store.get_run(gone.id)


def test_nothing_that_is_used_is_collected(store: SqlStore, make_manifest: MakeManifest) -> None:
    manifest = make_manifest()
    store.put_run(manifest)

    assert store.collect() == 0
    assert store.get_run(manifest.id) == manifest


def test_a_run_that_comes_while_its_sections_are_collected_stays_whole(
    store: SqlStore, make_manifest: MakeManifest
) -> None:
    def put_and_delete() -> None:
        for _ in range(15):
            manifest = make_manifest(sections={"packages": {"shared": "1"}})
            store.put_run(manifest)
            assert store.get_run(manifest.id) == manifest
            store.delete_run(manifest.id)

    def collect() -> None:
        for _ in range(15):
            store.collect()

    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(work) for work in (put_and_delete, put_and_delete, collect)]:
            done.result()
