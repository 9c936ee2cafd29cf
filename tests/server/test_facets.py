"""Values are counted as runs have them, and fields are found by how they begin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from manifest.filtering import Field, parse_filter
from manifest.models import Manifest
from manifest_server.sqlstore import SqlStore

MakeManifest = Callable[..., Manifest]


@pytest.fixture
def filled(store: SqlStore, make_manifest: MakeManifest) -> SqlStore:
    for index in range(6):
        store.put_run(
            make_manifest(
                project="cats" if index < 2 else "dogs",
                sections={
                    "config": {"lr": [0.1, 0.2][index % 2], "tags": ["a", "b"][: index % 3]},
                    "settings": {
                        "torch.version": f"2.{index // 3}",
                        "flag": index % 2 == 0,
                        "paths": ["a", "b"][: index % 3],
                    },
                    "packages": {"torch": "2.13.0"},
                },
            )
        )
        if index in (1, 3):
            store.collect()  # what came before is kept in another form than what comes now
    return store


@pytest.mark.parametrize(
    ("field", "counts"),
    [
        (Field("settings", "torch.version"), [("2.0", 3), ("2.1", 3)]),
        (Field("settings", "flag"), [(False, 3), (True, 3)]),
        (Field("settings", "paths"), [("a", 4), ("b", 2)]),
        (Field("packages", "torch"), [("2.13.0", 6)]),
        (Field("config", "lr"), [(0.1, 3), (0.2, 3)]),
        (Field("config", "tags"), [("a", 4), ("b", 2)]),
        (Field("", "project"), [("dogs", 4), ("cats", 2)]),
        (Field("", "outcome"), []),
        (Field("config", "nothing"), []),
    ],
)
def test_counts_the_runs_of_each_value(
    filled: SqlStore, field: Field, counts: list[tuple[object, int]]
) -> None:
    assert [(each.value, each.runs) for each in filled.count_values(field)] == counts


def test_counts_no_value_that_only_deleted_runs_have(filled: SqlStore) -> None:
    for run in filled.list_runs(wanted=parse_filter('settings.torch.version = "2.0"')):
        filled.delete_run(run.id)

    for project in (None, "dogs"):
        found = filled.count_values(Field("settings", "torch.version"), project=project)
        assert [(each.value, each.runs) for each in found] == [("2.1", 3)]


def test_counts_only_what_is_meant(filled: SqlStore) -> None:
    version = Field("settings", "torch.version")
    wanted = parse_filter("config.lr = 0.1")

    within = filled.count_values(version, project="cats")
    filtered = filled.count_values(version, wanted=wanted)
    own = filled.count_values(Field("config", "lr"), project="cats", wanted=wanted)

    assert [(each.value, each.runs) for each in within] == [("2.0", 2)]
    assert [(each.value, each.runs) for each in filtered] == [("2.0", 2), ("2.1", 1)]
    assert [(each.value, each.runs) for each in own] == [(0.1, 1)]


def test_counts_among_the_newest_runs_alone(filled: SqlStore) -> None:
    def counts(**chosen: Any) -> list[tuple[object, int]]:
        found = filled.count_values(Field("settings", "torch.version"), **chosen)
        return [(each.value, each.runs) for each in found]

    assert counts(newest=4) == [("2.1", 3), ("2.0", 1)]
    assert counts(newest=4, wanted=parse_filter("config.lr = 0.1")) == [("2.0", 1), ("2.1", 1)]
    assert counts(newest=1, project="cats") == [("2.0", 1)]
    assert counts(newest=100) == counts()


def test_names_projects(filled: SqlStore) -> None:
    assert filled.list_projects() == ["cats", "dogs"]


@pytest.mark.parametrize(
    ("prefix", "fields"),
    [
        ("settings.t", ["settings.torch.version"]),
        ("config.", ["config.lr", "config.tags"]),
        ("pack", ["packages.torch"]),
        ("sta", ["status", "started_at"]),
        ("nothing", []),
    ],
)
def test_finds_fields_by_how_they_begin(filled: SqlStore, prefix: str, fields: list[str]) -> None:
    assert sorted(filled.list_fields(prefix)) == sorted(fields)


def test_finds_no_more_fields_than_are_asked_for(filled: SqlStore) -> None:
    every = filled.list_fields(limit=500)

    assert len(every) == len(set(every)) < 500
    assert all(filled.list_fields(limit=limit) == every[:limit] for limit in range(len(every)))


def test_what_every_run_has_otherwise_is_no_field(
    store: SqlStore, make_manifest: MakeManifest
) -> None:
    store.put_run(make_manifest(sections={"seeds": {"entropy": "00ff", "hash_seed": "7"}}))
    assert store.list_fields("seeds.") == ["seeds.hash_seed"]


def test_that_a_run_has_several_values_is_no_field(filled: SqlStore) -> None:
    fields = filled.list_fields(limit=500)
    assert "config.tags" in fields
    assert [field for field in fields if field.startswith(".")] == []
    assert filled.list_fields(".") == []
