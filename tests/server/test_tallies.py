"""Values of attributes, counted among the newest runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from manifest.filtering import parse_filter
from manifest.models import Manifest
from manifest_server.sqlstore import SqlStore

NAMES = ("status", "project", "outcome")


@pytest.mark.parametrize(
    "text",
    [
        'status = "failed"',
        "config.batch = 3",
        "config.lr > 0.5 and settings.threads = 1",
        'project = "project 2" or packages.torch = "2.1"',
        "not settings.is_old = true",
        'name ~ "number 31"',
        "config.batch = 99",
        "config.batch = 3 and config.layers > 3000 and not settings.threads = 3",
        "config.batch in (0, 1, 2, 3, 4, 5) and config.batch in (0, 1, 2, 3, 4, 6)",
        'config.lr > 0.2 and project = "project 2"',
    ],
)
@pytest.mark.parametrize("newest", [1000, 10_000])
def test_a_tally_is_what_counting_each_attribute_gives(
    crowded: tuple[SqlStore, list[Manifest]], text: str, newest: int
) -> None:
    store, manifests = crowded
    wanted = parse_filter(text)
    bound = sorted(manifest.id for manifest in manifests)[-newest:][0]
    found = store.tally(NAMES, newest=newest, wanted=wanted)
    fitting = store.list_runs(limit=len(manifests), wanted=wanted)
    for name in NAMES:
        counts = Counter(getattr(run, name) for run in fitting if run.id >= bound)
        counts.pop(None, None)
        assert {each.value: each.runs for each in found[name]} == counts


def test_a_tally_knows_one_project_alone(crowded: tuple[SqlStore, list[Manifest]]) -> None:
    store, manifests = crowded
    of_project = [each for each in manifests if each.project == "project 3"]
    found = store.tally(NAMES, newest=100, project="project 3")
    assert [(each.value, each.runs) for each in found["project"]] == [("project 3", 100)]
    newest = Counter(each.status for each in of_project[-100:])
    assert [(each.value, each.runs) for each in found["status"]] == newest.most_common()


def test_only_the_most_frequent_are_given(crowded: tuple[SqlStore, list[Manifest]]) -> None:
    store, _ = crowded
    found = store.tally(["name"], newest=50, limit=3)
    assert [each.runs for each in found["name"]] == [1, 1, 1]


def test_an_empty_store_has_no_values(store: SqlStore) -> None:
    assert store.tally(NAMES, newest=10) == {name: [] for name in NAMES}


def test_projects_are_counted_and_the_newest_run_of_each_is_named(
    crowded: tuple[SqlStore, list[Manifest]],
) -> None:
    store, manifests = crowded
    found = store.tally_projects(limit=10)
    assert [(newest.project, runs) for runs, newest in found] == [
        (f"project {number}", len(manifests) // 5) for number in range(5)
    ]
    assert [newest.id for _, newest in found] == [each.id for each in manifests[-5:]]
    ((count, only),) = store.tally_projects(limit=10, project="project 3")
    assert (only.project, count) == ("project 3", len(manifests) // 5)


def test_a_project_without_runs_is_none(
    store: SqlStore, make_manifest: Callable[..., Manifest]
) -> None:
    gone, kept = make_manifest(project="gone"), make_manifest(project="kept")
    store.put_runs([(gone, None), (kept, None)])
    store.delete_run(gone.id)
    assert [newest.project for _, newest in store.tally_projects(limit=10)] == ["kept"]
