"""Runs that are read together."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import event, update

from manifest.errors import DigestMismatch, RunNotFound
from manifest.identity import new_run_id
from manifest.models import Annotations, Manifest
from manifest.sealing import seal_document
from manifest_server.packing import compressed
from manifest_server.reading import SharedSections, get_runs, get_values
from manifest_server.sqlstore import SqlStore
from manifest_server.tables import sections

MakeManifest = Callable[..., Manifest]

SETTINGS = {"torch.num_threads": 4, "python.hash_probe": 7}
PACKAGES = {"torch": "2.13.0", "numpy": "2.3.1"}


@pytest.fixture
def alike(store: SqlStore, make_manifest: MakeManifest) -> list[Manifest]:
    """Three runs with the same sections but for their own configuration; the last still runs."""
    made = [
        make_manifest(
            is_sealed=number < 2,
            sections={
                "settings": {**SETTINGS, "python.hash_probe": number},
                "packages": PACKAGES,
                "config": {"lr": number},
            },
        )
        for number in range(3)
    ]
    store.put_runs([(manifest, None) for manifest in made])
    return made


def test_runs_come_whole_and_in_the_order_in_which_they_are_asked_for(
    store: SqlStore, alike: list[Manifest]
) -> None:
    asked = [alike[2], alike[0], alike[1], alike[0]]
    assert store.get_runs([manifest.id for manifest in asked]) == asked


def test_runs_with_and_without_processes_come_whole_together(
    store: SqlStore, make_manifest: MakeManifest
) -> None:
    without = make_manifest().model_dump(
        mode="json", by_alias=True, exclude_unset=True, exclude={"processes", "digest", "digests"}
    )
    seal_document(without)
    ranks = {"main": {}, "main.x1": {"sections": {"settings": SETTINGS, "config": {"rank": 1}}}}
    runs = [Manifest.model_validate(without), make_manifest(processes=ranks), make_manifest()]
    store.put_runs([(manifest, None) for manifest in runs])

    assert "processes" not in runs[0].model_fields_set
    assert store.get_runs([manifest.id for manifest in runs]) == runs


def test_one_that_is_missing_is_named(store: SqlStore, alike: list[Manifest]) -> None:
    missing = new_run_id()
    with pytest.raises(RunNotFound, match=missing):
        store.get_runs([alike[0].id, missing])


def test_values_are_those_of_the_manifest(store: SqlStore, alike: list[Manifest]) -> None:
    names = ("config", "settings", "loaders")
    found = store.get_values([manifest.id for manifest in alike], names)
    assert found == {
        manifest.id: {name: manifest.sections[name] for name in names if name in manifest.sections}
        for manifest in alike
    }


def test_what_many_share_is_fetched_once(store: SqlStore, alike: list[Manifest]) -> None:
    shared = SharedSections()
    asked: list[str] = []
    ids = [manifest.id for manifest in alike]
    with store._reading() as connection:
        event.listen(
            connection, "before_cursor_execute", lambda *event: asked.append(str(event[2]))
        )
        get_runs(connection, ids, shared)
        first = [statement for statement in asked if "FROM sections" in statement]
        get_runs(connection, ids, shared)
        get_values(connection, ids, ["packages"], shared)
    assert len(first) == 1
    assert [statement for statement in asked if "FROM sections" in statement] == first


def test_memory_is_bounded_and_what_was_forgotten_is_read_again(
    store: SqlStore, alike: list[Manifest]
) -> None:
    shared = SharedSections(most_bytes=1)
    with store._reading() as connection:
        for _ in range(2):
            assert get_runs(connection, [alike[0].id], shared) == [alike[0]]
    assert not shared._kept
    assert shared._kept._bytes == 0


def test_a_section_whose_bytes_were_changed_is_refused(
    store: SqlStore, alike: list[Manifest]
) -> None:
    with store._engine.begin() as connection:
        connection.execute(update(sections).values(body=compressed(b'{"torch": "0.1"}')))
    with pytest.raises(DigestMismatch):
        store.get_values([alike[0].id], ["packages"])


def test_tags_of_many_are_read_at_once(store: SqlStore, alike: list[Manifest]) -> None:
    store.put_annotations(alike[1].id, Annotations(tags={"team": "nlp"}))
    assert store.get_tags([manifest.id for manifest in alike]) == {alike[1].id: {"team": "nlp"}}
