"""Lists read from run directories alone say what the store says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifest.models import Verdict
from manifest.rundir import RunDirectory, run_directories
from manifest_client.embedded import STORE, open_embedded
from manifest_client.reading import newest_runs

Record = Callable[..., RunDirectory]
Call = Callable[..., Any]


def test_a_list_is_the_same_with_and_without_a_store(base: Path, record: Record) -> None:
    record(name="first", command=["python", "train.py", "--note", "a b"])
    record(name="n" * 300, command=["python", "x" * 3000], exit_code=1)
    original = record(project="other\0", command=["python", "--api-key=hunter2hunter2"])
    replay = record(replay_of=original.id)
    verdict = Verdict(outcome="identical", original=original.id, replay=replay.id, sentence="equal")
    replay.put_verdict(verdict.model_dump(mode="json"))
    record(is_over=False)
    without = newest_runs(run_directories(base), 100, pytest.fail)
    assert not (base / STORE).exists()
    with open_embedded(base, pytest.fail) as store:
        assert store.list_runs() == without
    assert [run.status for run in without].count("running") == 1


def test_no_more_runs_are_read_than_are_listed(base: Path, record: Record) -> None:
    runs = [record() for _ in range(4)]
    for run in (runs[0], runs[2]):
        (run.path / "manifest.json").write_text("{")
    warnings: list[str] = []
    found = newest_runs(run_directories(base), 2, warnings.append)
    assert [run.id for run in found] == [runs[3].id, runs[1].id]
    (warning,) = warnings
    assert runs[2].id in warning


@pytest.mark.parametrize("verdict", ["{}", json.dumps({"outcome": "perhaps"})])
def test_a_verdict_that_is_none_is_named_and_hides_no_other(
    base: Path, record: Record, verdict: str
) -> None:
    whole, other = record(), record()
    (other.path / "verdict.json").write_text(verdict)
    warnings: list[str] = []
    assert [run.id for run in newest_runs(run_directories(base), 9, warnings.append)] == [whole.id]
    assert other.id in warnings[0]


def test_ls_makes_no_store_and_says_the_same_once_there_is_one(
    base: Path, record: Record, call: Call
) -> None:
    for _ in range(4):
        record()
    fresh = call("ls", "--json", "-n", "3")
    assert not (base / STORE).exists()
    assert call("show", "@latest").code == 0
    assert (base / STORE).exists()
    assert call("ls", "--json", "-n", "3") == fresh
