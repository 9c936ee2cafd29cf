"""Ranks that a launcher starts are one run: shown, compared with each other, replayed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from manifest.launching import launch
from manifest.models import Manifest
from manifest.replaying import replay
from manifest.rundir import RunDirectory, run_directories

SCRIPT = Path(__file__).parent / "scripts" / "ranks.py"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one recorded training of two ranks in it."""
    folder = tmp_path_factory.mktemp("ranks") / "project"
    folder.mkdir()
    shutil.copy(SCRIPT, folder / "train.py")
    shutil.copy(SCRIPT.with_name("descent.py"), folder)
    return folder


@pytest.fixture(scope="module")
def recorded(folder: Path) -> Iterator[RunDirectory]:
    """A recorded training of two ranks, with a rate from the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("RATE", "0.25")
        patch.setenv("OMP_NUM_THREADS", "1")
        for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PYTHONPATH"):
            patch.delenv(name, raising=False)
        launched = launch(
            [*TORCHRUN, "train.py", str(folder.parent / "spoiler")], base=folder / ".manifest"
        )
        assert launched.exit_code == 0
        yield launched.run


def test_two_ranks_are_one_run_with_a_record_of_each(recorded: RunDirectory, folder: Path) -> None:
    manifest = Manifest.model_validate(recorded.document())
    ranks = {process.rank: process for process in manifest.processes.values()}
    assert ranks.keys() == {0, 1}
    assert [ranks[rank].trail.steps for rank in (0, 1)] == [6, 6]  # type: ignore[union-attr]
    environment = manifest.sections["environment"]
    assert environment["env.RANK"] == "0", "the sections of the run are those of rank 0"
    assert ranks[1].sections["environment"]["env.RANK"] == "1"
    assert (environment["launcher.name"], environment["launcher.world_size"]) == ("torchrun", 2)
    assert environment["asked.RATE"] == "0.25"
    assert manifest.sections["settings"]["torch.distributed.world_size"] == 2
    assert manifest.sections["seeds"]["os_entropy_uses"] == {}, "the launcher's own names"

    shown = said("show", recorded.id, folder=folder)
    assert "2 ranks, started by torchrun" in shown
    assert "rank 1  6 steps" in shown
    assert "rank 1 records the same" in said("diff", recorded.id, "--ranks", folder=folder)


def test_a_replay_starts_the_launcher_again_and_compares_every_rank(
    recorded: RunDirectory, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    verdict = replay(recorded, base=folder / ".manifest")
    assert verdict.outcome == "identical", verdict.sentence
    assert verdict.comparison is not None
    assert verdict.comparison.steps == 6


def test_a_replay_names_the_rank_that_parted_first(
    recorded: RunDirectory, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder.parent / "spoiler").touch()
    verdict = replay(recorded, base=folder / ".manifest")
    (folder.parent / "spoiler").unlink()
    assert verdict.outcome == "diverged"
    assert verdict.sentence.startswith("on rank 1, equal to step 2; at step 3 ")


@pytest.fixture(scope="module")
def self_recorded(folder: Path) -> dict[str, RunDirectory]:
    """Two launches at the same time, whose ranks call `record()`; of one, rank 1 is killed."""
    base = folder / ".manifest"
    before = {run.id for run in run_directories(base)}
    environ = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    command = [*TORCHRUN, "--standalone", "train.py", str(folder.parent / "spoiler"), "record"]
    launches = [
        subprocess.Popen([*command, *more], cwd=folder, env=environ, stderr=subprocess.PIPE)
        for more in ([], ["kill"])
    ]
    for launch_ in launches:
        launch_.communicate()
    assert [launch_.returncode for launch_ in launches] == [0, 1]
    runs = [run for run in run_directories(base) if run.id not in before]
    return {str(run.document()["status"]): run for run in runs}


def test_ranks_that_record_themselves_are_one_run_for_each_launch(
    self_recorded: dict[str, RunDirectory], folder: Path
) -> None:
    assert self_recorded.keys() == {"finished", "crashed"}
    run = self_recorded["finished"]
    manifest = Manifest.model_validate(run.document())
    ranks = {process.rank: process for process in manifest.processes.values()}
    assert [ranks[rank].trail.steps for rank in (0, 1)] == [6, 6]  # type: ignore[union-attr]
    assert run.is_sealed(), "by the last rank"
    command = manifest.sections["command"]
    assert command["argv"][1:3] == ["-m", "torch.distributed.run"], "what started all of them"
    assert command["ranks"] == 2
    assert "rank 1" in said("diff", run.id, "--ranks", folder=folder)


def test_a_rank_that_is_killed_leaves_the_record_of_both(
    self_recorded: dict[str, RunDirectory],
) -> None:
    processes = self_recorded["crashed"].document()["processes"]
    # The other may have been stopped amid the step that needs both.
    assert processes["rank0"]["trail"]["steps"] == processes["rank1"]["trail"]["steps"] == 3
    assert processes["rank1"]["ended_at"] is None


def test_a_replay_starts_the_launcher_of_ranks_that_recorded_themselves(
    self_recorded: dict[str, RunDirectory], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    verdict = replay(self_recorded["finished"], base=folder / ".manifest")
    assert verdict.outcome == "identical", verdict.sentence
    assert verdict.comparison is not None
    assert verdict.comparison.steps == 6


def said(*arguments: str, folder: Path) -> str:
    call = "from manifest_client.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", call, *arguments],
        cwd=folder,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
