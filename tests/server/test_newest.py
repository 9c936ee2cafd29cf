"""Whatever way is taken to the newest runs, they are those that the filter means."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from manifest.filtering import parse_filter
from manifest.models import Manifest
from manifest_server.sqlstore import SqlStore

Crowd = tuple[SqlStore, list[Manifest]]

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
]


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
