"""What the machine decides is put back in a replay, and what was asked for instead is set."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from manifest.changing import Changes
from manifest.launching import launch
from manifest.models import Restore, Verdict
from manifest.original import CHANGED, REPLAY, Original
from manifest.replaying import replay
from manifest.rundir import RunDirectory, run_directories

SCRIPT = """\
import sys
import numpy as np
import torch
from descent import Descent
if sys.argv[1:] == ["record"]:
    import manifest
    manifest.record()
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(256, 512), torch.nn.GELU(), torch.nn.Linear(512, 64))
optimizer = Descent(model.parameters())
for _ in range(3):
    model(torch.randn(512, 256)).square().mean().backward()
    optimizer.step()
"""

needs_two_processors = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="the number of threads cannot differ here"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with runs of the script, recorded from its start and from its code."""
    folder = tmp_path_factory.mktemp("settings")
    (folder / "train.py").write_text(SCRIPT)
    shutil.copy(Path(__file__).parent / "scripts" / "descent.py", folder)
    return folder


@pytest.fixture(scope="module")
def watched(folder: Path) -> Iterator[RunDirectory]:
    """Recorded by `manifest run`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield launch([sys.executable, "train.py"], base=folder / ".manifest").run


@pytest.fixture(scope="module")
def called(folder: Path) -> RunDirectory:
    """Recorded by a call in the code."""
    command = [sys.executable, "train.py", "record"]
    environ = {**os.environ, "MANIFEST_DIR": str(folder / "called"), "PYTHONHASHSEED": "1"}
    subprocess.run(command, cwd=folder, env=environ, check=True)
    (run,) = run_directories(folder / "called")
    return run


@pytest.fixture(params=["watched", "called"])
def original(request: pytest.FixtureRequest) -> RunDirectory:
    """A run of either kind."""
    found: RunDirectory = request.getfixturevalue(request.param)
    return found


def item(verdict: Verdict, what: str) -> Restore:
    (found,) = (item for item in verdict.restores if item.what == what)
    return found


@contextmanager
def one_processor() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@needs_two_processors
def test_fewer_processors_do_not_change_the_number_of_threads(original: RunDirectory) -> None:
    with one_processor():
        verdict = replay(original, base=original.path.parents[1], best_effort=True)
    assert verdict.outcome == "identical", verdict.sentence
    again = RunDirectory(original.path.with_name(verdict.replay or ""))
    before, after = (run.document()["sections"]["settings"] for run in (original, again))
    assert before["torch.num_threads"] == after["torch.num_threads"] > 1


def test_variables_of_the_shell_do_not_change_the_number_of_threads(
    watched: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    verdict = replay(watched, base=watched.path.parents[1])
    assert verdict.outcome == "identical", verdict.sentence
    assert item(verdict, "settings").outcome == "equal already"
    assert item(verdict, "settings").number > 50


def test_settings_that_are_asked_for_are_set_and_told(original: RunDirectory) -> None:
    asked = {
        "torch.num_threads": 1,
        "torch.deterministic.mode": "__import__('os')",
        "numpy.errstate.over": "raise",
        "python.gc.enabled": False,
        "no.such.setting": 1,
    }
    verdict = replay(original, base=original.path.parents[1], changes=Changes(settings=asked))
    outcomes = {key: item(verdict, key).outcome for key in asked}
    assert outcomes == {
        "torch.num_threads": "restored",
        "torch.deterministic.mode": "failed",
        "numpy.errstate.over": "restored",
        "python.gc.enabled": "restored",
        "no.such.setting": "failed",
    }
    assert item(verdict, "torch.num_threads").reason == "as it was asked for"
    again = RunDirectory(original.path.with_name(verdict.replay or ""))
    settings = again.document()["sections"]["settings"]
    assert settings["torch.num_threads"] == 1
    assert settings["numpy.errstate.over"] == "raise"
    assert settings["python.gc.enabled"] is False


def test_a_variable_that_is_changed_on_purpose_has_its_effect(watched: RunDirectory) -> None:
    environ = {**os.environ, REPLAY: str(watched.path), CHANGED: "1", "OMP_NUM_THREADS": "1"}
    (found,) = Original(watched, "main", environ).restore_settings("torch")
    assert found.outcome == "skipped"
    assert "OMP_NUM_THREADS was changed on purpose" in found.reason
