"""A living program is put back to where a recorded run began, or told what is in the way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from manifest.errors import AmbiguousReference, RunNotFound, StateNotRestorable
from manifest.identity import new_run_id
from manifest.journal import encode_entry
from manifest.launching import launch
from manifest.replaying import replay
from manifest.rundir import RunDirectory, find_run, run_directories

RECORDED = """\
import gc, random, sys
import numpy as np, numpy.random
import manifest
gc.set_threshold(500, 5, 5)
random.seed(int(sys.argv[1]))
run = manifest.record()
own = random.Random()
run.track("own", own)
print(random.random(), np.random.rand(), own.random(), np.random.default_rng().random())
"""
RESTORED = """\
import gc, random, sys
import numpy as np, numpy.random
import manifest
run = manifest.record()
report = manifest.replay(sys.argv[1])
own = random.Random(1)
run.track("own", own)
print(random.random(), np.random.rand(), own.random(), np.random.default_rng().random())
print(gc.get_threshold(), report.later, report.is_complete)
print(report, file=sys.stderr)
"""

Python = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one recorded run, and what it printed."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "train.py").write_text(RECORDED)
    command = [sys.executable, "train.py", "3"]
    environ = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, check=True)
    (folder / "printed").write_bytes(done.stdout)
    return folder


@pytest.fixture
def run(project: Path) -> RunDirectory:
    """The recorded run."""
    return run_directories(project / ".manifest")[-1]


@pytest.fixture
def python(project: Path) -> Python:
    """Run source in the project; variables may be added."""

    def run(source: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        (project / "again.py").write_text(source)
        return subprocess.run(
            [sys.executable, "again.py", *arguments],
            cwd=project,
            env={**os.environ, "PYTHONHASHSEED": "7", **environ},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_a_program_goes_on_as_the_recorded_one_did(
    python: Python, run: RunDirectory, project: Path
) -> None:
    done = python(RESTORED, run.id[:13])
    assert done.returncode == 0, done.stderr
    drawn, told = done.stdout.splitlines()
    assert drawn == (project / "printed").read_text().strip()
    assert told == "(500, 5, 5) ('own',) True"
    assert "python.gc.threshold: restored" in done.stderr
    assert "python: restored" in done.stderr


def test_what_was_put_back_is_recorded_and_repeats(python: Python, run: RunDirectory) -> None:
    done = python(RESTORED, run.id)
    assert done.returncode == 0, done.stderr
    base = run.path.parents[1]
    again = run_directories(base)[0]
    found = {item["what"]: item["outcome"] for item in again.document()["restores"]}
    assert found["python"] == found["own"] == found["entropy"] == "restored"
    verdict = replay(again, base=base)
    assert again.document()["sections"]["generators"]["own"]["state"]
    assert verdict.replay is not None
    last = RunDirectory(again.path.with_name(verdict.replay)).document()
    assert (last["status"], last["error"]) == ("finished", None), "it found the run in its copy"


@pytest.mark.parametrize(
    ("environ", "obstacle"),
    [
        ({"PYTHONHASHSEED": "8"}, "hash seed: skipped (only a new process has it"),
        ({"OMP_NUM_THREADS": "3"}, "OMP_NUM_THREADS: skipped (it is read at the start"),
    ],
)
def test_strict_sets_nothing_where_something_is_in_the_way(
    python: Python, run: RunDirectory, environ: dict[str, str], obstacle: str
) -> None:
    source = (
        "import random, sys, numpy.random, manifest\n"
        "from manifest.generators import capture_generators\n"
        "manifest.record()\n"
        "before = capture_generators()\n"
        "try: manifest.replay(sys.argv[1])\n"
        "except manifest.ManifestError as error: print(error)\n"
        "print(capture_generators() == before)\n"
        "report = manifest.replay(sys.argv[1], strict=False)\n"
        "print(report.is_complete, capture_generators() == before)\n"
        "print(report)\n"
    )
    done = python(source, run.id, **environ)
    refusal, is_untouched, loosely, *report = done.stdout.splitlines()
    assert refusal.startswith("not replayable:")
    assert "nothing was set" in refusal
    assert obstacle in refusal
    assert is_untouched == "True"
    assert loosely == "False False"
    assert any(obstacle in line for line in report)


def test_a_broken_state_is_refused_and_never_called_restored(
    python: Python, run: RunDirectory, tmp_path: Path
) -> None:
    broken = RunDirectory.create(tmp_path, new_run_id())
    for path in (run.path / "journal").iterdir():
        (broken.path / "journal" / path.name).write_bytes(path.read_bytes())
    entries = broken.entries_of("main")
    for entry in entries:
        if entry.get("section") == "generators" and "python" in entry["values"]:
            entry["values"]["python"] = {"kind": "python", "state": {"$bytes": "AAAA"}}
    path = broken.path / "journal" / "main.jsonl"
    path.write_bytes(b"".join(encode_entry(entry) for entry in entries))
    source = (
        "import random, sys, numpy.random, manifest\n"
        "before = random.getstate()\n"
        "print(manifest.replay(sys.argv[1], strict=False, only=['generators']))\n"
        "print(random.getstate() == before)\n"
        "manifest.replay(sys.argv[1])\n"
    )
    done = python(source, broken.id, MANIFEST_DIR=str(tmp_path))
    assert "generators: failed" in done.stdout
    assert "restored" not in done.stdout
    assert done.stdout.endswith("True\n")
    assert "NotReplayable" in done.stderr


def test_only_what_is_named_is_put_back(python: Python, run: RunDirectory) -> None:
    source = (
        "import gc, random, sys, numpy.random, manifest\n"
        "before = gc.get_threshold()\n"
        "report = manifest.replay(sys.argv[1], only=['python'])\n"
        "print({item.what.partition('.')[0] for item in report.items}, report.is_complete)\n"
        "report = manifest.replay(sys.argv[1], only=['generators'], strict=False)\n"
        "print({item.what: item.outcome for item in report.items})\n"
    )
    done = python(source, run.id)
    names, generators = done.stdout.splitlines()
    assert names == "{'python'} True"
    assert eval(generators) == {
        "python": "equal already",
        "numpy.legacy": "restored",
        "own": "skipped",
        "entropy": "skipped",
    }


def test_a_run_watched_from_its_start_needs_a_new_process(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import random\nrandom.random()\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        run = launch([sys.executable, "train.py"], base=tmp_path / ".manifest").run
    code = "import sys, manifest\nmanifest.replay(sys.argv[1])\n"
    command = [sys.executable, "-c", code, run.id]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert f"`manifest replay {run.id[:13]}`" in done.stderr


def test_a_snapshot_is_put_back_as_a_whole_and_into_a_recorded_program(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    import manifest

    monkeypatch.chdir(run.path.parents[2])
    with pytest.raises(StateNotRestorable, match="call `manifest"):
        manifest.replay(run.id, at=3)
    with pytest.raises(StateNotRestorable, match="no `only` with it"):
        manifest.replay(f"{run.id}:3", only=["python"])


def test_a_run_is_found_by_its_id_or_a_beginning_that_fits_no_other(tmp_path: Path) -> None:
    first, second = (RunDirectory.create(tmp_path, new_run_id()) for _ in range(2))
    assert find_run(tmp_path, first.id).path == first.path
    assert find_run(tmp_path, second.id.replace("-", "").upper()).path == second.path
    with pytest.raises(AmbiguousReference):
        find_run(tmp_path, first.id[:4])
    for unknown in ("", "@latest", "ffff", "../.."):
        with pytest.raises(RunNotFound):
            find_run(tmp_path, unknown)
