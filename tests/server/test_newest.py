"""Whatever way is taken to the newest runs, they are those that the filter means."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import pytest

from manifest.filtering import Field, Filter, is_match, parse_filter
from manifest.models import Manifest
from manifest_migrations.upgrade import open_store
from manifest_server import gathering, newest
from manifest_server.database import sqlite_url
from manifest_server.sqlstore import SqlStore
from manifest_server.terms import values_of

MakeManifest = Callable[..., Manifest]
Crowd = tuple[SqlStore, list[Manifest]]

IN_SMALL_STEPS = {
    "_FEW": 4,
    "_MANY": 40,
    "_WALKS": (5, 20, 60),
    "_LOOKS": (10, 30),
    "_MOST": 30,
    "_ROWS": 2,
    "_FASTER": 2,
    "_PORTIONS": 3,
    "_GROWTH": 2,
}
"""So that every way is taken, and none is at its end at once, among some hundred runs."""

CASES: list[tuple[str, Callable[[int], bool]]] = [
    ("settings.threads = 3", lambda n: n % 4 == 3),
    ("settings.threads = 3 and config.batch = 7", lambda n: n % 8 == 7),
    ("settings.threads = 3 and config.batch = 1", lambda n: False),
    ('settings.threads = 3 and packages.torch = "2.1"', lambda n: n % 4 == 3 and n // 4 % 3 == 1),
    ("settings.is_old = true", lambda n: n < 1100),
    ("settings.is_old = true and settings.threads = 1", lambda n: n < 1100 and n % 4 == 1),
    ("settings.nothing = 1", lambda n: False),
    ("settings.threads = 9", lambda n: False),
    ("settings.nothing = 1 or config.batch = 3", lambda n: n % 8 == 3),
    ("not settings.threads = 3", lambda n: n % 4 != 3),
    ("not settings.nothing = 1", lambda n: True),
    ('code.git.commit = "77"', lambda n: n // 10 == 77),
    ('code.git.commit = "77" and config.lr > 0', lambda n: n // 10 == 77),
    ('code.git.commit = "77" and config.batch >= 0', lambda n: n // 10 == 77),
    ('code.git.commit = "77" and settings.threads = 2', lambda n: n // 10 == 77 and n % 4 == 2),
    ("config.lr >= 0.25 and config.lr < 0.26", lambda n: 800 <= n < 832),
    ("config.lr >= 0.25 and config.lr < 0.75", lambda n: 800 <= n < 2400),
    ("config.lr > 0", lambda n: n > 0),
    ("config.lr < 0.2", lambda n: n < 640),
    ("config.layers > 3000 and config.layers < -3000", lambda n: n > 3000 and n % 2 == 1),
    ("config.batch is not null", lambda n: True),
    ('name ~ "77"', lambda n: "77" in str(n)),
    ('name ~ "BER 77"', lambda n: str(n).startswith("77")),
    ('name ~ "r 7" and not name ~ "r 77"', lambda n: str(n)[0] == "7" and str(n)[:2] != "77"),
    ('name like "%r 77_"', lambda n: 770 <= n < 780),
    ('name ~ "number"', lambda n: True),
    ("name ~ 'number \"7'", lambda n: False),
    ('name ~ "nowhere"', lambda n: False),
    ('name ~ "77" and config.lr > 0', lambda n: "77" in str(n)),
    ('status = "failed" and config.batch in (2, 4)', lambda n: n % 10 == 0 and n % 8 in (2, 4)),
    ('project = "project 3" and config.batch = 3', lambda n: n % 40 == 3),
    ('project = "project 2" and settings.is_old = true', lambda n: n % 5 == 2 and n < 1100),
    ('project = "project 3" and project = "project 4"', lambda n: False),
    ('project = "project 3" or config.batch = 3', lambda n: n % 5 == 3 or n % 8 == 3),
    ("project = 3", lambda n: False),
]


@pytest.fixture(params=["as it is", "in small steps"])
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Search as it is done, and with every bound so low that it is passed."""
    if request.param == "in small steps":
        for name, value in IN_SMALL_STEPS.items():
            monkeypatch.setattr(newest, name, value)


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize(("text", "is_meant"), CASES, ids=[text for text, _ in CASES])
def test_the_newest_of_those_meant_are_found(
    crowded: Crowd, text: str, is_meant: Callable[[int], bool]
) -> None:
    store, manifests = crowded
    wanted = parse_filter(text)
    meant = [run.id for number, run in enumerate(manifests) if is_meant(number)][::-1]
    of_project = [run_id for run_id in meant if int(run_id[-12:], 16) % 5 == 3]
    after = manifests[2500].id

    assert [run.id for run in store.list_runs(wanted=wanted)] == meant[:50]
    assert [run.id for run in store.list_runs(wanted=wanted, limit=5000)] == meant
    assert [run.id for run in store.list_runs(wanted=wanted, before=after, limit=20)] == [
        run_id for run_id in meant if run_id < after
    ][:20]
    assert [run.id for run in store.list_runs(wanted=wanted, project="project 3")] == (
        of_project[:50]
    )


def test_a_page_of_a_project_and_a_status(crowded: Crowd) -> None:
    store, manifests = crowded

    found = store.list_runs(project="project 0", status="failed", limit=7)

    assert [run.id for run in found] == [run.id for run in manifests[::10][:-8:-1]]


PARTS = [
    "config.batch = 1",
    "config.is_rare = true",
    "config.is_old = true",
    "config.is_new = true",
    "config.side = 2",
    "config.side in (1, 2)",
    "config.lr > 0.3",
    "config.lr > 0.3 and config.lr < 0.35",
    "config.lr < 0.1",
    "config.several > 90 and config.several < 10",
    "settings.threads = 3",
    "settings.is_old = true",
    'code.git.commit = "7"',
    'status = "failed"',
    'name ~ "r 7"',
    'project = "project 1"',
    "not config.batch = 2",
    "config.batch = 1 or config.is_rare = true",
]
LATE = 500


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def late(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Crowd]:
    """Runs that came in no order, so that those of a term lie across each other."""
    if request.param == "sqlite":
        url = sqlite_url(tmp_path_factory.mktemp("late") / "store.db").render_as_string()
    else:
        url = request.getfixturevalue("module_postgresql_url")
    make: MakeManifest = request.getfixturevalue("module_make_manifest")
    manifests = [make(**one_that_is_late(number)) for number in range(LATE)]
    coming = random.Random(7).sample(manifests, LATE)
    with open_store(url) as store:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gathering, "_FRESH", 200)
            for start in range(0, LATE - 20, 20):
                store.put_runs((manifest, None) for manifest in coming[start : start + 20])
                if start % 60 == 0:
                    store.collect()
        store.put_runs((manifest, None) for manifest in coming[LATE - 20 :])
        yield store, manifests


def one_that_is_late(number: int) -> dict[str, Any]:
    known = random.Random(number)
    config = {
        "batch": known.randrange(3),
        "lr": known.random(),
        "side": known.sample(range(5), 2),
        "several": known.sample(range(100), 2),
        "is_rare": known.random() < 0.02,
        "is_old": number < 200,
        "is_new": number > 300,
    }
    return {
        "id": f"00000000-0000-7000-8000-{number:012x}",
        "project": f"project {number % 3}",
        "name": f"number {number}",
        "status": "failed" if number % 10 == 0 else "finished",
        "is_sealed": number % 20 != 7,
        "sections": {
            "config": config,
            "settings": {"threads": number % 4, "is_old": number < 150},
            "code": {"git.commit": f"{number // 20}"},
        },
    }


def meant(manifests: list[Manifest], wanted: Filter) -> list[str]:
    """The reference: what each run has is looked at, in Python."""

    def values(manifest: Manifest, field: Field) -> list[object]:
        if field.section and not manifest.digest:
            return []  # what goes on may still change
        if field.section:
            return list(values_of(manifest.sections[field.section], field.key))
        return [getattr(manifest, field.key)]

    return [
        manifest.id
        for manifest in reversed(manifests)
        if is_match(wanted, lambda field, manifest=manifest: values(manifest, field))  # type: ignore[misc]
    ]


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize("count", [2, 3])
def test_parts_mean_together_what_the_reference_says(late: Crowd, count: int) -> None:
    store, manifests = late
    known = random.Random(count)
    together = list(combinations(PARTS, count))
    for parts in known.sample(together, 120):
        wanted = parse_filter(" and ".join(f"({part})" for part in parts))
        project, limit = known.choice((None, "project 1")), known.choice((3, 11, 99))
        before = known.choice((None, manifests[LATE // 2].id))
        fitting = [
            run_id
            for run_id in meant(manifests, wanted)
            if (project is None or int(run_id[-12:], 16) % 3 == 1)
            and (before is None or run_id < before)
        ]

        found = store.list_runs(wanted=wanted, project=project, limit=limit, before=before)

        assert [run.id for run in found] == fitting[:limit], (parts, project, limit, before)
