"""Run directories: what was written is what is read, whatever interrupted it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from manifest.canonical import Digest, checked_digest, digest_bytes
from manifest.errors import DamagedRun, DigestMismatch, NewerSchema, NotRecordable
from manifest.identity import is_run_id, new_run_id, short_id
from manifest.journal import Journal
from manifest.models import Manifest
from manifest.origin import RUN, Origin, write_origin
from manifest.rundir import RunDirectory, find_base, run_directories
from manifest.trail import Trail, TrailWriter

GOLDEN = Path(__file__).parent / "golden"


def begun(base: Path, folder: Path, **fields: Any) -> tuple[RunDirectory, Journal]:
    run = RunDirectory.create(base, new_run_id())
    _, journal = run.claim("run")
    origin = Origin(
        mode=RUN,
        command=["python", "train.py"],
        executable=sys.executable,
        folder=folder,
        entropy=bytes(32),
        hash_seed="7",
        **fields,
    )
    write_origin(journal, run, origin)
    return run, journal


def ended_process(run: RunDirectory) -> None:
    """Let a process that is dead by now have written to the run."""
    code = (
        "import sys; from pathlib import Path; from manifest.rundir import RunDirectory;"
        "from manifest.liveness import identify_process;"
        "_, j = RunDirectory(Path(sys.argv[1])).claim('main');"
        "j.append('process', **identify_process());"
        "j.section('config', {'lr': 0.1})"
    )
    subprocess.run([sys.executable, "-c", code, str(run.path)], check=True)


@pytest.mark.parametrize(("ended_by", "are_said"), [(None, True), ("SIGKILL", False)])
def test_a_trail_that_ends_amid_a_step_is_noted_unless_the_program_was_killed(
    ended_by: str | None, are_said: bool, tmp_path: Path
) -> None:
    run, journal = begun(tmp_path / ".manifest", tmp_path)
    ended_process(run)
    TrailWriter(run.trail_path("main")).close()
    with run.trail_path("main").open("ab") as file:
        file.write(b"torn")
    journal.append("exit", code=137 if ended_by else 0, signal=ended_by)
    notes = run.write_manifest()["notes"]
    assert [note["where"] for note in notes] == ["trail"] * are_said


def test_a_run_is_running_while_its_launcher_lives(tmp_path: Path) -> None:
    run, _ = begun(tmp_path / ".manifest", tmp_path)
    ended_process(run)
    document = run.document()
    assert document["status"] == "running"
    assert document["sections"]["config"] == {"lr": 0.1}
    with pytest.raises(DamagedRun, match="still going on"):
        run.seal()


def test_a_run_whose_processes_died_silently_is_crashed(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path;"
        "from test_rundir import begun; print(begun(Path(sys.argv[2]), Path(sys.argv[2]))[0].path)"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)]
    path = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    run = RunDirectory(Path(path))
    assert run.document()["status"] == "crashed"
    assert run.seal()["status"] == "crashed"
    assert run.is_sealed()


def test_a_sealed_manifest_never_changes(tmp_path: Path) -> None:
    run, journal = begun(tmp_path / ".manifest", tmp_path)
    journal.append("exit", code=0, signal=None)
    sealed = run.write_manifest()
    journal.section("config", {"late": True})
    assert run.write_manifest() == sealed
    assert run.document() == sealed
    manifest = Manifest.model_validate(sealed)
    assert manifest.status == "finished"
    assert manifest.digests.keys() == manifest.sections.keys()


def test_a_document_survives_the_cut_of_any_journal_at_any_byte(tmp_path: Path) -> None:
    run, journal = begun(tmp_path / ".manifest", tmp_path)
    ended_process(run)
    journal.append("exit", code=3, signal=None)
    for name in ("run", "main"):
        path = run.path / "journal" / f"{name}.jsonl"
        whole = path.read_bytes()
        first_line = whole.index(b"\n") + 1 if name == "run" else 0
        for size in range(first_line, len(whole), 7):
            path.write_bytes(whole[:size])
            Manifest.model_validate(run.document())
        path.write_bytes(whole)
    assert run.document()["exit_code"] == 3


def test_a_directory_without_its_first_entry_is_damaged(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, new_run_id())
    with pytest.raises(DamagedRun, match="does not begin with the run"):
        run.document()


@pytest.mark.parametrize("is_sealed", [True, False])
def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path, is_sealed: bool) -> None:
    run = RunDirectory.create(tmp_path, new_run_id())
    if is_sealed:
        (run.path / "manifest.json").write_text(json.dumps({"schema": 99, "id": run.id}))
    else:
        _, journal = run.claim("run")
        journal.append("run", schema=99, id=run.id)
    before = sorted(run.path.rglob("*"))
    with pytest.raises(NewerSchema, match="schema 99") as caught:
        run.document()
    assert "pip install -U" in str(caught.value)
    assert sorted(run.path.rglob("*")) == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema": "1"}', b"\xff", b"[" * 99999])
def test_a_manifest_that_is_no_manifest_is_damaged(tmp_path: Path, content: bytes) -> None:
    run = RunDirectory.create(tmp_path, new_run_id())
    (run.path / "manifest.json").write_bytes(content)
    with pytest.raises(DamagedRun):
        run.document()


def test_threads_keep_the_same_bytes_at_once(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, new_run_id())
    barrier = threading.Barrier(4)

    def keep(data: bytes) -> str:
        barrier.wait()
        return run.put_blob(data)

    with ThreadPoolExecutor(4) as pool:
        for number in range(200):
            data = bytes([number]) * 200_000
            assert set(pool.map(keep, [data] * 4)) == {digest_bytes(data)}
            assert run.get_blob(digest_bytes(data)) == data


def test_a_full_disk_keeps_nothing_of_what_it_refused(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, new_run_id())
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            run.put_blob(bytes(5000))
        except OSError:
            os._exit(3)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    assert [path for path in (run.path / "blobs").rglob("*") if path.is_file()] == []


def test_blobs_are_found_under_their_digest_and_verified(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, new_run_id())
    digest = run.put_blob(b"weights")
    assert run.put_blob(b"weights") == digest
    assert run.get_blob(digest) == b"weights"
    with pytest.raises(KeyError):
        run.get_blob(Digest("sha256:" + "0" * 64))
    with pytest.raises(ValueError, match="expected 'sha256:'"):
        run.get_blob(Digest("sha256:../../etc/passwd"))
    (blob,) = [path for path in (run.path / "blobs").rglob("*") if path.is_file()]
    blob.write_bytes(b"changed")
    with pytest.raises(DigestMismatch):
        run.get_blob(digest)


def test_a_folder_that_cannot_be_written_is_refused_in_one_sentence(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(NotRecordable, match="MANIFEST_DIR"):
        RunDirectory.create(blocked, new_run_id())


def test_programs_that_start_under_one_name_get_names_of_their_own(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, new_run_id())
    assert [run.claim("main")[0] for _ in range(3)] == ["main", "main~1", "main~2"]


def test_runs_are_listed_newest_first_and_nothing_else_is(tmp_path: Path) -> None:
    made = [RunDirectory.create(tmp_path, new_run_id()).id for _ in range(3)]
    (tmp_path / "runs" / "notes").mkdir()
    assert [run.id for run in run_directories(tmp_path)] == sorted(made, reverse=True)
    assert run_directories(tmp_path / "nowhere") == []
    assert (tmp_path / ".gitignore").read_text() == "*\n"


def test_the_nearest_folder_upward_keeps_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".manifest").mkdir()
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert find_base(deep) == tmp_path / ".manifest"
    monkeypatch.setenv("MANIFEST_DIR", str(tmp_path / "elsewhere"))
    assert find_base(deep) == tmp_path / "elsewhere"


def test_ids_sort_by_time_and_are_unique() -> None:
    ids = [new_run_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(is_run_id(run_id) for run_id in ids)
    assert [short_id(run_id) for run_id in ids] == sorted(short_id(run_id) for run_id in ids)


@pytest.mark.parametrize("path", sorted(GOLDEN.iterdir()), ids=lambda path: path.name)
def test_every_released_schema_reads_forever(path: Path, tmp_path: Path) -> None:
    expected = Manifest.model_validate_json((path / "expected.json").read_bytes())
    run = RunDirectory(path / expected.id)
    assert Manifest.model_validate(run.document()) == expected
    assert run.get_blob(checked_digest(expected.sections["code"]["files"]["train.py"]))
    trail = Trail.open(run.trail_path("main"))
    assert (trail.steps, trail.streams()) == (3, ("rng", "batch", "loss", "grad", "param"))
    assert trail.leaves.at(2, "param") == {"weight": b"\x06" * 8, "bias": b"\x07" * 8}

    unsealed = RunDirectory(shutil.copytree(run.path, tmp_path / expected.id))
    (unsealed.path / "manifest.json").unlink()
    found = Manifest.model_validate(unsealed.seal())
    assert found == expected
    assert (unsealed.path / "manifest.json").read_bytes() == (
        run.path / "manifest.json"
    ).read_bytes()
