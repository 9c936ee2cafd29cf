"""A verdict is to be believed, whatever happens while a program is repeated."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from manifest.launching import launch
from manifest.models import Verdict
from manifest.replaying import replay
from manifest.rundir import run_directories

SCRIPTS = Path(__file__).parent / "scripts"

TRAINING = """
import os, sys
{}
import torch
from descent import Descent
model = torch.nn.Linear(2, 1)
optimizer = Descent(model.parameters(), lr=0.1)
for _ in range(4):
    model(torch.rand(4, 2)).square().sum().backward()
    optimizer.step()
"""


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Verdict]]:
    """Replay one recorded training, which meets what it is told."""
    folder = tmp_path_factory.mktemp("spoilt")
    project, told = folder / "project", folder / "told"
    project.mkdir()
    told.mkdir()
    for script in ("spoilt.py", "descent.py"):
        shutil.copy(SCRIPTS / script, project)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        launched = launch([sys.executable, "spoilt.py", str(told)], base=project / ".manifest")
        assert launched.exit_code == 0

        def run(*what: str, **options: Any) -> Verdict:
            for name in what:
                (told / name).touch()
            verdict = replay(launched.run, base=project / ".manifest", **options)
            for name in what:
                (told / name).unlink()
            return verdict

        yield run


@pytest.mark.parametrize(
    ("what", "outcome", "said"),
    [
        ("a full disk", "not replayable", "the replay was not watched to its end: OSError: "),
        ("an opaque batch", "not replayable", "the replay could not go on: RuntimeError: these it"),
        ("a child", "diverged", "in the replay main.f0 made 3 steps, in the recorded run 0"),
        ("an early end", "diverged", "the replay ended after 580 of 600 steps"),
        ("a late end", "diverged", "the replay went on to step 620, the recorded run ended at 600"),
        ("a failure", "diverged", "the replay with 1 (RuntimeError: no more memory)"),
    ],
)
def test_what_a_replay_meets_is_told(
    what: str, outcome: str, said: str, replayed: Callable[..., Verdict]
) -> None:
    verdict = replayed(what)
    assert (verdict.outcome, said in verdict.sentence) == (outcome, True), verdict.sentence


def test_a_disk_that_filled_up_is_told_of_a_program_that_ends_without_a_word(
    replayed: Callable[..., Verdict],
) -> None:
    verdict = replayed("a full disk", "a silent end")
    assert verdict.outcome == "not replayable", verdict.sentence


def test_two_trainings_whose_disks_had_no_room_for_a_note_are_not_identical(
    project: Path, checkout: Path
) -> None:
    # The journal has met the limit before the trail does, and can say nothing of that.
    limited = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))"
    )
    shutil.copy(SCRIPTS / "descent.py", project)
    source = TRAINING.format(limited).replace("range(4)", "range(200)")
    (project / "train.py").write_text(source)
    base = project / ".manifest"
    verdict = replay(launch([sys.executable, "train.py"], base=base).run, base=base)
    assert verdict.outcome == "not replayable", verdict.sentence
    assert "the recorded run was not watched to its end" in verdict.sentence


def test_a_replay_up_to_the_last_step_does_not_ask_how_it_ended(
    replayed: Callable[..., Verdict],
) -> None:
    verdict = replayed("a failure", until=600)
    assert verdict.outcome == "identical", verdict.sentence


def test_a_program_that_starts_itself_anew_is_compared_in_both_lives(
    script: Callable[[str, str], Path], base: Path
) -> None:
    anew = "if len(sys.argv) == 1: os.execv(sys.executable, [sys.executable, 'train.py', 'again'])"
    script("train.py", TRAINING.format("") + anew)
    launched = launch([sys.executable, "train.py"], base=base)
    processes = launched.run.document()["processes"]
    assert [process["trail"]["steps"] for process in processes.values()] == [4, 4]
    verdict = replay(launched.run, base=base)
    assert verdict.outcome == "identical", verdict.sentence


def test_a_program_that_was_asked_to_stop_is_repeated_as_far_as_it_went(
    script: Callable[[str, str], Path], base: Path, tmp_path: Path
) -> None:
    # As Lightning ends: well, though somebody pressed Ctrl-C.
    asked = tmp_path / "asked"
    asked.touch()
    stopped = (
        "import signal\n"
        "for _ in range(3):\n"
        "    model(torch.rand(4, 2)).square().sum().backward()\n"
        "    optimizer.step()\n"
        f"    if os.path.exists({str(asked)!r}):\n"
        "        os.kill(os.getppid(), signal.SIGINT)\n"
        "        break\n"
    )
    script("train.py", TRAINING.format("") + stopped)
    launched = launch([sys.executable, "train.py"], base=base)
    assert (launched.exit_code, launched.was_interrupted) == (0, True)
    asked.unlink()
    verdict = replay(launched.run, base=base)
    assert verdict.outcome == "identical", verdict.sentence
    assert verdict.comparison is not None
    assert verdict.comparison.steps == 5


WITHIN = """
import os, pathlib, sys
import manifest
manifest.record()
from manifest.launching import launch
from manifest.replaying import replay
from manifest.rundir import RunDirectory
base = pathlib.Path(".manifest")
of_outside = replay(RunDirectory(pathlib.Path(sys.argv[1])), base=base)
print(of_outside.outcome, of_outside.sentence)
"""


def test_a_program_that_is_recorded_itself_may_replay(
    script: Callable[[str, str], Path], base: Path
) -> None:
    script("train.py", TRAINING.format(""))
    script("sweep.py", WITHIN)
    launched = launch([sys.executable, "train.py"], base=base)
    sweep = launch([sys.executable, "sweep.py", str(launched.run.path)], base=base)
    assert sweep.exit_code == 0
    (verdict,) = (found for run in run_directories(base) if (found := run.verdict()))
    assert verdict["outcome"] == "identical", verdict["sentence"]


def test_what_switches_recording_off_here_does_not_reach_a_replay(
    script: Callable[[str, str], Path], base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Inside the program it comes too late: the run is recorded from without.
    inside = "os.environ['MANIFEST_MODE'] = 'disabled'\nimport manifest\nmanifest.record()"
    script("outside.py", TRAINING.format(inside))
    script("inside.py", TRAINING.format("import torch, manifest\nmanifest.record()"))
    subprocess.run([sys.executable, "inside.py"], check=True)
    (own,) = run_directories(base)
    for run in (launch([sys.executable, "outside.py"], base=base).run, own):
        with monkeypatch.context() as patch:
            patch.setenv("MANIFEST_MODE", "disabled")
            patch.setenv("MANIFEST_UNTIL", "2")
            verdict = replay(run, base=base)
        assert verdict.outcome == "identical", verdict.sentence
        assert verdict.comparison is not None
        assert verdict.comparison.steps == 4


def test_one_changed_bit_is_found_where_it_is_and_no_other_is(checkout: Path) -> None:
    campaign = [sys.executable, str(checkout / "benchmarks" / "verdicts.py")]
    options = ["--count", "8", "--replays", "1", "--seed", "1"]
    done = subprocess.run([*campaign, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^none +8 +0 +8$", done.stdout, re.MULTILINE)
