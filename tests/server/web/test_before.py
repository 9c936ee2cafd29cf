"""From a run to the comparison with the one before it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from manifest.identity import new_run_id
from manifest.models import Manifest
from manifest_server.sqlstore import SqlStore
from manifest_server.web.before import program

MakeManifest = Callable[..., Manifest]


@pytest.fixture
def of(make_manifest: MakeManifest) -> Callable[..., Manifest]:
    """A function that makes the run of a command."""

    def made(*argv: str, **changes: object) -> Manifest:
        return make_manifest(sections={"command": {"argv": list(argv)}}, **changes)

    return made


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("python train.py --lr 0.1", "train.py"),
        ("/opt/bin/python3.12 -u src/train.py", "src/train.py"),
        ("python -m nlp.train config.py", "nlp.train"),
        ("torchrun --nproc-per-node 2 train.py", "train.py"),
        ("/usr/bin/fit --fast", "fit"),
        ("python train.py 'cut within quo", "train.py"),
        ("", ""),
    ],
)
def test_a_program_has_a_name_whatever_starts_it(command: str, name: str) -> None:
    assert program(command) == name


def test_a_run_is_compared_with_the_one_before_of_the_same_program(
    pages: TestClient, runs: SqlStore, of: Callable[..., Manifest]
) -> None:
    first = of("python", "train.py", "--lr", "0.1")
    others = [
        of("python", "evaluate.py"),
        of("python", "train.py", project="another"),
        of("python", "train.py", replay_of=first.id),
    ]
    second = of("/usr/bin/python3", "train.py")
    runs.put_runs((each, None) for each in (first, *others, second))
    answer = pages.get(f"/runs/{second.id}/before", follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/compare?ids={first.id},{second.id}"
    assert f"/runs/{second.id}/before" in pages.get(f"/runs/{second.id}").text


def test_a_replay_is_compared_with_its_original(
    pages: TestClient, runs: SqlStore, of: Callable[..., Manifest]
) -> None:
    original = of("python", "train.py")
    between = of("python", "train.py")
    replay = of("python", "train.py", replay_of=original.id)
    runs.put_runs((each, None) for each in (original, between, replay))
    answer = pages.get(f"/runs/{replay.id}/before", follow_redirects=False)
    assert answer.headers["location"] == f"/compare?ids={original.id},{replay.id}"


def test_the_first_run_of_a_program_says_that_it_is_the_first(
    pages: TestClient, runs: SqlStore, of: Callable[..., Manifest]
) -> None:
    first = of("python", "train.py")
    runs.put_runs([(of("python", "evaluate.py"), None), (first, None)])
    page = pages.get(f"/runs/{first.id}/before")
    assert page.status_code == 200
    assert "There is no run of <code>train.py</code> before" in page.text
    assert f"/runs/{first.id}/before" not in pages.get(f"/runs/{first.id}").text


def test_the_run_before_is_found_behind_many_others(
    pages: TestClient, runs: SqlStore, of: Callable[..., Manifest]
) -> None:
    first = of("python", "train.py")
    others = [of("python", "evaluate.py") for _ in range(120)]
    last = of("python", "train.py")
    runs.put_runs((each, None) for each in (first, *others, last))
    answer = pages.get(f"/runs/{last.id}/before", follow_redirects=False)
    assert answer.headers["location"] == f"/compare?ids={first.id},{last.id}"


def test_there_is_nothing_before_a_run_that_is_not_there(pages: TestClient) -> None:
    assert pages.get(f"/runs/{new_run_id()}/before").status_code == 404
