"""The store beside the run directories."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifest.models import RunSummary, Verdict
from manifest.rundir import RunDirectory
from manifest.sealing import seal_document
from manifest_client.embedded import open_embedded

Record = Callable[..., RunDirectory]

DYING = """
import sys
from pathlib import Path
from manifest.origin import RUN, Origin, write_origin
from manifest.rundir import RunDirectory

run = RunDirectory.create(Path(sys.argv[1]), sys.argv[2])
origin = Origin(RUN, ["python", "x.py"], "python", Path.cwd(), bytes(32), "0")
write_origin(run.claim("run")[1], run, origin)
"""
DEAD = "0199c3f2-00ff-7000-8000-000000000000"


def listed(base: Path) -> list[RunSummary]:
    """What the store holds after it was brought up to date without a warning."""
    with open_embedded(base, pytest.fail) as store:
        return store.list_runs()


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """A document with digests that fit."""
    bare = {key: value for key, value in document.items() if key != "digest"}
    seal_document(bare)
    return bare


def put_verdict(replay: RunDirectory, original: RunDirectory) -> None:
    verdict = Verdict(outcome="identical", original=original.id, replay=replay.id, sentence="equal")
    replay.put_verdict(verdict.model_dump(mode="json"))


def test_a_sealed_run_is_taken_in(base: Path, record: Record) -> None:
    run = record(name="first", command=["python", "train.py", "--lr", "0.1"])
    (summary,) = listed(base)
    assert (summary.id, summary.name, summary.status) == (run.id, "first", "finished")
    assert summary.command == "python train.py --lr 0.1"


def test_a_run_that_goes_on_is_shown_as_it_is_now(base: Path, record: Record) -> None:
    run = record(is_over=False)
    assert [summary.status for summary in listed(base)] == ["running"]
    run.write_manifest()
    assert [summary.status for summary in listed(base)] == ["crashed"]


def test_a_run_whose_process_died_is_sealed_as_crashed(base: Path) -> None:
    subprocess.run([sys.executable, "-c", DYING, str(base), DEAD], check=True)
    assert not RunDirectory(base / "runs" / DEAD).is_sealed()
    assert [(run.id, run.status) for run in listed(base)] == [(DEAD, "crashed")]
    assert RunDirectory(base / "runs" / DEAD).is_sealed()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not a readable run directory"),
        ("[]", "not a readable run directory"),
        (json.dumps({"schema": 999}), "Upgrade with"),
        (json.dumps({"schema": 1}), "sealed with"),
        (json.dumps(sealed({"schema": 1, "sections": {}})), "Field required"),
    ],
)
def test_a_damaged_or_newer_run_is_named_and_hides_no_other(
    base: Path, record: Record, content: str, reason: str
) -> None:
    whole, damaged = record(), record()
    (damaged.path / "manifest.json").write_text(content)
    warnings: list[str] = []
    with open_embedded(base, warnings.append) as store:
        assert [run.id for run in store.list_runs()] == [whole.id]
    (warning,) = warnings
    assert damaged.id in warning
    assert reason in warning
    assert (damaged.path / "manifest.json").read_text() == content


def test_a_run_that_the_store_refuses_hides_no_other(base: Path, record: Record) -> None:
    other = record()
    assert [run.id for run in listed(base)] == [other.id]
    document = json.loads((other.path / "manifest.json").read_text())
    (other.path / "manifest.json").write_text(json.dumps(sealed({**document, "name": "another"})))
    put_verdict(other, other)
    whole = record()
    warnings: list[str] = []
    with open_embedded(base, warnings.append) as store:
        assert [(run.id, run.name) for run in store.list_runs()] == [
            (whole.id, None),
            (other.id, None),
        ]
    (warning,) = warnings
    assert other.id in warning


def test_a_verdict_that_came_after_its_run_is_taken_in(base: Path, record: Record) -> None:
    original = record()
    replay = record(replay_of=original.id)
    assert [run.outcome for run in listed(base)] == [None, None]
    put_verdict(replay, original)
    assert [run.outcome for run in listed(base)] == ["identical", None]


def test_only_the_newest_runs_are_taken_in_where_that_is_enough(base: Path, record: Record) -> None:
    runs = [record() for _ in range(6)]
    (runs[4].path / "manifest.json").write_text("{")
    warnings: list[str] = []
    with open_embedded(base, warnings.append, newest=2) as store:
        found = [run.id for run in store.list_runs()]
    # The damaged one does not count: the next older takes its place.
    assert found[:2] == [runs[5].id, runs[3].id]
    assert runs[0].id not in found


def test_a_deleted_store_is_built_again(base: Path, record: Record) -> None:
    record(), record()
    before = listed(base)
    for file in base.glob("store.db*"):
        file.unlink()
    assert listed(base) == before


def test_a_store_in_a_folder_needs_nothing_that_only_the_service_brings() -> None:
    """Who has installed no extra has neither a web framework nor what reads requests."""
    asked = (
        "import sys, manifest_client.embedded, manifest_migrations.upgrade;"
        "print(sorted({'fastapi', 'jinja2', 'msgspec', 'uvicorn', 'zstandard'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
