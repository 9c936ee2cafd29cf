"""What is recorded of files: kept whole, recognised, or neither."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from manifest.filefacts import FileFacts, content_digest, describe
from manifest.identity import new_run_id
from manifest.rundir import RunDirectory


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@pytest.fixture
def run(project: Path) -> RunDirectory:
    return RunDirectory.create(project / ".manifest", new_run_id())


@pytest.fixture
def facts(run: RunDirectory, project: Path) -> FileFacts:
    return FileFacts(run, project)


def test_a_small_file_of_the_project_is_kept_whole(
    facts: FileFacts, run: RunDirectory, project: Path
) -> None:
    (project / "config.json").write_text('{"lr": 0.1}')
    found = facts.inputs([str(project / "config.json")])[str(project / "config.json")]
    assert run.get_blob(found["blob"]) == b'{"lr": 0.1}'


def test_a_file_elsewhere_is_recognised_by_its_digest(facts: FileFacts, tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(b"data")
    found = facts.inputs([str(path)])[str(path)]
    assert found["digest"] == content_digest(path)
    assert "blob" not in found


def test_an_input_is_told_as_it_was_read_first(
    facts: FileFacts, run: RunDirectory, project: Path
) -> None:
    path = project / "state.json"
    path.write_bytes(b"before")
    found = facts.inputs([str(path)])[str(path)]
    assert run.get_blob(found["blob"]) == b"before"
    assert facts.inputs([str(path)]) == {}
    path.write_bytes(b"the run wrote this")
    assert facts.inputs([str(path)]) == {str(path): {"rewritten": True}}


def test_a_secret_is_neither_kept_nor_digested(
    facts: FileFacts, run: RunDirectory, project: Path
) -> None:
    (project / ".env").write_text("API_KEY=correct-horse-battery\n")
    found = facts.inputs([str(project / ".env")])
    assert all(set(of_file) == {"size", "mtime_us"} for of_file in found.values())
    assert [path for path in (run.path / "blobs").rglob("*") if path.is_file()] == []


def test_a_pipe_is_never_read(facts: FileFacts, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert facts.inputs([str(tmp_path / "pipe")]) == {}
    assert describe(str(tmp_path / "pipe")) == {"missing": "not a regular file"}


def test_the_runs_own_files_and_vanished_ones_are_none_of_the_programs(
    facts: FileFacts, run: RunDirectory, tmp_path: Path
) -> None:
    gone = str(tmp_path / "gone")
    assert facts.outputs([gone, str(run.path / "journal" / "run.jsonl")]) == {}


def test_equal_content_has_equal_digests(tmp_path: Path) -> None:
    for name, content in (("a", b"x" * 3_000_000), ("b", b"x" * 3_000_000), ("c", b"y")):
        (tmp_path / name).write_bytes(content)
    assert content_digest(tmp_path / "a") == content_digest(tmp_path / "b")
    assert content_digest(tmp_path / "a") != content_digest(tmp_path / "c")
