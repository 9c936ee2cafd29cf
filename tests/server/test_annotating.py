"""Tags and notes change, one writer after another; manifests do not."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from manifest.errors import AnnotationsChanged, RunNotFound, StoreUnusable
from manifest.filtering import parse_filter
from manifest.identity import new_run_id
from manifest.models import Annotations, Manifest
from manifest_server.annotating import Remark
from manifest_server.auditing import Change
from manifest_server.database import transaction
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


def test_what_several_say_at_once_is_kept_or_refused_one_by_one(
    store: SqlStore, make_manifest: MakeManifest
) -> None:
    first, second, third = (make_manifest() for _ in range(3))
    store.put_runs((run, None) for run in (first, second, third))
    store.put_annotations(third.id, Annotations(tags={"team": "cv", "stage": "old"}))

    def remark(run_id: str, team: str, version: int = 0) -> Remark:
        change = Change(team, None, "annotate run", run_id)
        return Remark(run_id, Annotations(tags={"team": team}, version=version), team, change)

    kept = store.put_remarks(
        [
            remark(third.id, "nlp", 1),
            remark(first.id, "nlp"),
            remark(first.id, "too late"),
            remark(first.id, "cv", 1),
            remark(new_run_id(), "nobody's"),
            remark(second.id, "from nowhere", 7),
            remark(second.id, "nlp"),
        ]
    )

    assert [type(each) for each in kept] == [
        Annotations,
        Annotations,
        AnnotationsChanged,
        Annotations,
        RunNotFound,
        AnnotationsChanged,
        Annotations,
    ]
    assert [store.get_annotations(each.id).tags for each in (first, second, third)] == [
        {"team": "cv"},
        {"team": "nlp"},
        {"team": "nlp"},
    ]
    assert found(store, 'tags.team = "cv"') == [first.id]
    assert found(store, 'tags.team = "nlp"') == [third.id, second.id]
    assert found(store, "tags.stage is not null") == []
    said = {(each.caller, each.subject) for each in store.list_audit_entries()}
    assert said == {("nlp", third.id), ("nlp", first.id), ("cv", first.id), ("nlp", second.id)}


def test_a_remark_that_the_database_cannot_take_does_not_fail_the_others(
    store: SqlStore, make_manifest: MakeManifest
) -> None:
    good, poison = make_manifest(), make_manifest()
    store.put_runs((run, None) for run in (good, poison))
    with transaction(store._engine, is_writing=True) as connection:
        connection.exec_driver_sql(_REFUSING[store.backend])

    kept = store.put_remarks(
        [Remark(poison.id, Annotations(note="poison")), Remark(good.id, Annotations(note="good"))]
    )

    assert isinstance(kept[0], StoreUnusable)
    assert kept[1] == store.get_annotations(good.id)
    assert store.get_annotations(poison.id) == Annotations()


_REFUSING = {
    "sqlite": "CREATE TRIGGER refusing BEFORE INSERT ON run_annotations WHEN new.note = 'poison' "
    "BEGIN SELECT RAISE(ABORT, 'not this one'); END",
    "postgresql": "ALTER TABLE run_annotations ADD CONSTRAINT refusing CHECK (note <> 'poison')",
}


def test_of_many_who_have_read_the_same_words_one_replaces_them(
    store: SqlStore, make_manifest: MakeManifest
) -> None:
    runs = [make_manifest() for _ in range(5)]
    store.put_runs((run, None) for run in runs)

    def say(number: int) -> list[Annotations | Exception]:
        tags = {f"writer_{number}": "x", "team": str(number % 3)}
        return store.put_remarks([Remark(run.id, Annotations(tags=tags)) for run in runs])

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(say, range(24)))

    for place, run in enumerate(runs):
        kept = [each[place] for each in answers if isinstance(each[place], Annotations)]
        assert kept == [store.get_annotations(run.id)]
        assert all(isinstance(e[place], (Annotations, AnnotationsChanged)) for e in answers)
        for name in store.get_annotations(run.id).tags:
            assert run.id in found(store, f"tags.{name} is not null")
    assert len(found(store, "tags.team is not null")) == len(runs)
