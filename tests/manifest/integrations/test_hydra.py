"""Hydra's jobs as runs: each with its configuration, its overrides and a command of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from manifest.launching import launch
from manifest.models import Manifest
from manifest.replaying import replay
from manifest.rundir import run_directories

PROGRAM = """
import hydra

@hydra.main(version_base="1.3", config_path="conf", config_name="other")
def main(config):
    if config.lr < 0:
        raise ValueError(f"lr is {config.lr}")
    train(config)

def train(config):
    pass

"""
TRAINS = """
import torch
from descent import Descent

def train(config):
    model = torch.nn.Linear(2, 1)
    optimizer = Descent(model.parameters(), lr=config.lr)
    for _ in range(config.steps):
        model(torch.rand(4, 2)).sum().backward()
        optimizer.step()

"""
CONFIG = """
lr: 0.1
steps: 3
twice: ${lr}
index: ${hydra:job.num}
api_key: s3cret-abc
"""
CALLBACK = "+hydra.callbacks.manifest._target_=manifest.integrations.hydra.RecordJobs"

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, descent: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a program of Hydra into an empty folder, entered."""
    monkeypatch.chdir(tmp_path)

    def write(train: str = "", config: str = CONFIG) -> None:
        Path("conf").mkdir()
        Path("conf/config.yaml").write_text(config)
        Path("train.py").write_text(f"{PROGRAM}{train}main()\n")
        shutil.copy(descent, tmp_path)

    return write


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "train.py", "--config-name", "config", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def manifests() -> list[Manifest]:
    return [
        Manifest.model_validate(each.document())
        for each in reversed(run_directories(Path(".manifest")))
    ]


def test_each_job_of_a_sweep_is_a_run_that_repeats_alone(write: Write) -> None:
    write(TRAINS)
    done = run("-m", "lr=0.1,0.2", CALLBACK)
    assert done.returncode == 0, done.stderr
    first, second = manifests()
    assert [each.name for each in (first, second)] == ["lr=0.1", "lr=0.2"]
    assert [each.status for each in (first, second)] == ["finished", "finished"]
    config = dict(second.sections["config"])
    assert "s3cret" not in str(second)
    assert config.pop("api_key").keys() == {"$redacted"}
    assert config == {
        "lr": 0.2,
        "steps": 3,
        "twice": 0.2,
        "index": 1,
        "hydra": {"overrides": ["lr=0.2"]},
    }
    output = second.sections["links"]["hydra.output_dir"]
    assert (Path(output) / ".hydra" / "config.yaml").is_file()
    assert second.notes == ()

    verdict = replay(run_directories(Path(".manifest"))[0], base=Path(".manifest"))
    assert verdict.outcome == "identical", verdict.sentence
    assert verdict.comparison is not None
    assert verdict.comparison.steps == 3, "the other job did not run again"
    again = manifests()[-1]
    assert again.sections["config"]["index"] == 1
    assert again.sections["config"]["hydra"]["overrides"] == ["lr=0.2"]


def test_under_manifest_run_a_sweep_is_one_run_that_tells_of_its_jobs(write: Write) -> None:
    write()
    launched = launch(
        [sys.executable, "train.py", "-cn=config", "-m", "lr=0.1,0.2", CALLBACK],
        base=Path(".manifest"),
    )
    assert launched.exit_code == 0
    (only,) = manifests()
    jobs = only.sections["config"]["jobs"]
    assert {name: job["lr"] for name, job in jobs.items()} == {"0": 0.1, "1": 0.2}
    assert jobs["1"]["hydra"] == {"overrides": ["lr=0.2"]}
    assert len(only.sections["links"]["hydra.output_dir"]) == 2


def test_jobs_of_another_launcher_are_recorded_and_said_not_to_repeat(write: Write) -> None:
    write()
    source = "from hydra._internal.core_plugins.basic_launcher import BasicLauncher\n\n"
    Path("hydra_plugins").mkdir()
    Path("hydra_plugins/own.py").write_text(f"{source}class Launcher(BasicLauncher):\n    pass\n")
    done = run("-m", "lr=0.2", "hydra.launcher._target_=hydra_plugins.own.Launcher", CALLBACK)
    assert done.returncode == 0, done.stderr
    (only,) = manifests()
    assert only.sections["config"]["lr"] == 0.2
    assert [note.where for note in only.notes] == ["hydra"]


def test_a_job_that_fails_ends_its_run_as_failed_and_begins_where_the_program_did(
    write: Write,
) -> None:
    write()
    done = run("lr=-1", "hydra.job.chdir=True", CALLBACK)
    assert done.returncode == 1
    (failed,) = manifests()
    assert (failed.status, failed.error) == ("failed", "ValueError: lr is -1")
    assert (failed.name, failed.sections["command"]["cwd"]) == ("lr=-1", ".")
    assert failed.sections["command"]["argv"][1:4] == ["train.py", "--config-name", "config"]


def test_what_cannot_be_resolved_is_recorded_as_it_is_written(write: Write) -> None:
    write(config="lr: 1\nwhere: ${oc.env:NOT_SET_ANYWHERE}\n")
    done = run(CALLBACK)
    assert done.returncode == 0, done.stderr
    (only,) = manifests()
    assert only.sections["config"]["where"] == "${oc.env:NOT_SET_ANYWHERE}"
    assert [note.where for note in only.notes] == ["config"]


def test_without_the_callback_nothing_is_recorded(write: Write) -> None:
    write()
    assert run("lr=0.3").returncode == 0
    assert not Path(".manifest").exists()


def test_the_guide_names_the_callback(checkout: Path) -> None:
    text = (checkout / "docs" / "integrations.md").read_text(encoding="utf-8")
    assert f"python train.py -m lr=0.1,0.2 \\\n    {CALLBACK}" in text
    assert CALLBACK.partition("=")[2] in text.partition("```yaml")[2].partition("```")[0]
