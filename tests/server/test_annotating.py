"""Tags and notes change, one writer after another; manifests do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from manifest.errors import AnnotationsChanged, RunNotFound
from manifest.filtering import parse_filter
from manifest.models import Annotations, Manifest
from manifest_server.sqlstore import SqlStore

MakeManifest = Callable[..., Manifest]


@pytest.fixture
def run_id(store: SqlStore, make_manifest: MakeManifest) -> str:
    manifest = make_manifest()
    store.put_run(manifest)
    return manifest.id


def found(store: SqlStore, text: str) -> list[str]:
    return [run.id for run in store.list_runs(wanted=parse_filter(text))]


def test_nothing_was_said_of_a_new_run(store: SqlStore, run_id: str) -> None:
    assert store.get_annotations(run_id) == Annotations()


def test_what_is_said_is_kept_and_found(store: SqlStore, run_id: str) -> None:
    said = store.put_annotations(run_id, Annotations(tags={"team": "nlp"}, note="good"), by="ada")

    assert (said.version, said.updated_by) == (1, "ada")
    assert store.get_annotations(run_id) == said
    assert found(store, 'tags.team = "nlp"') == [run_id]


def test_tags_that_are_taken_away_are_not_found_any_more(store: SqlStore, run_id: str) -> None:
    said = store.put_annotations(run_id, Annotations(tags={"team": "nlp", "kind": "base"}))
    store.put_annotations(run_id, said.model_copy(update={"tags": {"team": "cv", "kind": "base"}}))

    assert found(store, 'tags.team = "nlp"') == []
    assert found(store, 'tags.team = "cv" and tags.kind = "base"') == [run_id]


def test_a_writer_who_has_not_seen_the_last_change_is_told(store: SqlStore, run_id: str) -> None:
    store.put_annotations(run_id, Annotations(note="first"))

    with pytest.raises(AnnotationsChanged, match="expected version 0, found 1"):
        store.put_annotations(run_id, Annotations(note="second"))
    assert store.get_annotations(run_id).note == "first"


def test_the_manifest_stays_as_it_is(store: SqlStore, run_id: str) -> None:
    before = store.get_run(run_id)
    store.put_annotations(run_id, Annotations(note="good"))
    assert store.get_run(run_id) == before


def test_nothing_can_be_said_of_a_run_that_is_not_there(store: SqlStore) -> None:
    with pytest.raises(RunNotFound):
        store.put_annotations("0199" + "0" * 28, Annotations(note="x"))
