"""Acknowledgements lie beside a run, and are for exactly what it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifest.delivered import FILE, acknowledge, acknowledged, contents, is_delivered
from manifest.identity import new_run_id
from manifest.origin import RUN, Origin, write_origin
from manifest.rundir import RunDirectory

URL = "http://service"


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run that goes on."""
    made = RunDirectory.create(tmp_path, new_run_id())
    _, journal = made.claim("run")
    origin = Origin(
        mode=RUN,
        command=["python"],
        executable="python",
        folder=tmp_path,
        entropy=bytes(32),
        hash_seed="0",
    )
    write_origin(journal, made, origin)
    journal.append("exit", code=0, signal=None)
    journal.close()
    return made


def test_there_is_nothing_to_acknowledge_before_a_run_is_sealed(run: RunDirectory) -> None:
    assert contents(run) is None
    acknowledge(run, URL, {"manifest": "", "verdict": ""})
    assert not is_delivered(run)
    document = run.write_manifest()
    assert contents(run) == {"manifest": document["digest"], "verdict": ""}
    assert not is_delivered(run)


def test_services_acknowledge_one_beside_the_other(run: RunDirectory) -> None:
    run.write_manifest()
    what = contents(run)
    assert what is not None
    acknowledge(run, URL, what)
    acknowledge(run, "http://other", {"manifest": "sha256:other", "verdict": ""})
    assert set(acknowledged(run)) == {URL, "http://other"}
    assert is_delivered(run)
    assert is_delivered(run, URL)
    assert not is_delivered(run, "http://other")
    assert not is_delivered(run, "http://third")


def test_a_verdict_must_be_acknowledged_too(run: RunDirectory) -> None:
    run.write_manifest()
    what = contents(run)
    assert what is not None
    acknowledge(run, URL, what)
    run.put_verdict({"outcome": "identical"})
    assert not is_delivered(run, URL)


def test_a_manifest_that_was_laid_out_anew_keeps_its_digest(run: RunDirectory) -> None:
    document = run.write_manifest()
    path = run.path / "manifest.json"
    path.write_text(" " + path.read_text())
    found = contents(run)
    assert found is not None
    assert found["manifest"] == document["digest"]


def test_no_draft_is_left_behind(run: RunDirectory) -> None:
    acknowledge(run, URL, {"manifest": "x", "verdict": ""})
    (run.path / FILE).unlink()
    (run.path / FILE).mkdir()
    with pytest.raises(OSError, match="directory"):
        acknowledge(run, URL, {"manifest": "x", "verdict": ""})
    assert [path.name for path in run.path.glob(f".{FILE}*")] == []
