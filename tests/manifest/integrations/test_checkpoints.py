"""What a checkpoint carries is put back, or said not to be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from manifest.rundir import run_directories

BEGIN = """\
import random, manifest
from manifest.integrations.checkpoints import put_back, take
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(source: str) -> tuple[list[str], str]:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + source], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines(), done.stderr


def test_generators_go_on_where_the_checkpoint_was_saved(folder: Path) -> None:
    lines, _ = said(
        "manifest.record()\n"
        "carried = take(7, [])\n"
        "drawn = random.random()\n"
        "print(carried, put_back(carried, is_strict=True), random.random() == drawn)\n"
    )
    (run,) = run_directories(folder / ".manifest")
    assert lines == [f"{run.id}:7 True True"]


@pytest.mark.parametrize(
    ("carried", "reason"), [("'0199c3f2-1:7'", "no run"), ("None", "the checkpoint carries none")]
)
def test_what_cannot_be_put_back_is_noted(carried: str, reason: str, folder: Path) -> None:
    lines, errors = said(f"manifest.record()\nprint(put_back({carried}, is_strict=False))")
    assert lines == ["False"]
    (run,) = run_directories(folder / ".manifest")
    (note,) = run.document()["notes"]
    assert reason in str(note)
    assert ("not exactly where the checkpoint was saved" in errors) == (carried != "None")


def test_what_cannot_be_put_back_is_refused_if_it_is_asked_for(folder: Path) -> None:
    lines, _ = said(
        "manifest.record()\n"
        "try:\n"
        "    put_back('0199c3f2-1:7', is_strict=True)\n"
        "except manifest.ManifestError as error:\n"
        "    print(type(error).__name__)\n"
    )
    assert lines == ["RunNotFound"]


def test_a_program_that_is_not_recorded_has_nothing_to_carry(folder: Path) -> None:
    lines, _ = said("print(take(7, []), put_back('0199c3f2-1:7', is_strict=True))")
    assert lines == ["None False"]
    assert not (folder / ".manifest").exists()
