"""Seeds from the clock and the process id are given again, at their places and in their order."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from manifest.launching import launch
from manifest.models import Restore, Verdict
from manifest.replaying import replay
from manifest.rundir import RunDirectory

SCRIPT = Path(__file__).parent / "scripts" / "clock.py"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunDirectory]:
    """A recorded run of the script, which also left its output beside it."""
    folder = tmp_path_factory.mktemp("clock")
    for script in (SCRIPT, SCRIPT.with_name("descent.py")):
        shutil.copy(script, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        command = ["bash", "-c", f"exec {sys.executable} clock.py > {folder}/out.txt"]
        # Started by a shell, its output goes where each of the runs writes its own.
        yield launch(command, base=folder / ".manifest").run


@pytest.fixture(scope="module")
def verdict(original: RunDirectory) -> Verdict:
    """The verdict of its replay."""
    out = original.path.parents[2] / "out.txt"
    shutil.copy(out, out.with_name("first.txt"))
    return replay(original, base=original.path.parents[1])


def by_place(verdict: Verdict) -> dict[str, Restore]:
    return {item.what: item for item in verdict.restores if item.what.startswith("clock.py")}


def test_a_training_that_is_seeded_from_the_clock_repeats(
    original: RunDirectory, verdict: Verdict
) -> None:
    assert verdict.outcome == "identical", verdict.sentence
    out = original.path.parents[2]
    assert (out / "out.txt").read_text() == (out / "first.txt").read_text()
    assert (out / "out.txt").read_text().endswith("True\n"), "accelerators are seeded alike"


def test_every_seed_that_was_given_again_is_told(verdict: Verdict) -> None:
    found = by_place(verdict)
    assert {item.outcome for item in found.values()} == {"restored"}
    functions = [what.partition(" ")[2] for what in found]
    assert sorted(functions) == [
        "numpy.random.RandomState",
        "numpy.random.default_rng",
        "numpy.random.seed",
        "random.Random",
        "random.seed",
        "random.seed",
        "random.seed",
        "torch.Generator.manual_seed",
        "torch.manual_seed",
        "torch.manual_seed",
        "torch.manual_seed",
    ]
    assert all("the recorded" in item.reason for item in found.values())
    assert sorted(item.number for item in found.values())[-3:] == [1, 2, 3]


def test_processes_give_the_seeds_of_their_own(verdict: Verdict) -> None:
    processes = {item.process for item in verdict.restores}
    assert processes >= {"main", "main.x0", "main.f0", "main.f1"}


def test_the_replay_is_recorded_with_the_seeds_that_were_given(
    original: RunDirectory, verdict: Verdict
) -> None:
    again = RunDirectory(original.path.with_name(verdict.replay or ""))
    before, after = (run.document()["sections"]["seeds"]["calls"] for run in (original, again))
    assert before == after
    assert len(before) == 9


def test_a_replay_that_is_changed_on_purpose_keeps_its_own_seeds(original: RunDirectory) -> None:
    changed = replay(original, base=original.path.parents[1], extra_args=["--another"])
    assert changed.outcome == "diverged"
    found = by_place(changed)
    assert {item.outcome for item in found.values()} == {"skipped"}
    assert all("on purpose" in item.reason for item in found.values())
