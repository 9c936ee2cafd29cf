"""A training that resumes from a checkpoint of Transformers computes what the whole one did."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifest.rundir import run_directories

AMID = "of=3.12"
AT_THE_END = "save=epoch,of=5"
KINDS = (
    AMID,
    AT_THE_END,
    "workers=1,of=7",
    "accumulate=2,of=2.3",
    "stream=1,of=7",
)


@pytest.fixture(scope="module")
def trainings(program: Callable[..., Any]) -> dict[str, Any]:
    """What was computed of each kind: whole, from checkpoints, and from those without the hook."""
    return dict(zip(KINDS, program("transformers_resume.py", *KINDS), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_resumes_with_the_bits_of_the_whole_one(
    kind: str, trainings: dict[str, Any]
) -> None:
    whole = trainings[kind]["whole"]
    assert len(whole["losses"]) == 15
    for step, resumed in trainings[kind]["resumed"].items():
        done = int(step) * (2 if "accumulate" in kind else 1)
        if (kind, step) == ("accumulate=2,of=2.3", "3"):
            done = 5  # an epoch of five batches ends with a step of one
        assert resumed == {"losses": whole["losses"][done:], "bits": whole["bits"]}, step


def test_transformers_alone_resumes_amid_an_epoch_with_other_numbers(
    trainings: dict[str, Any],
) -> None:
    """huggingface/transformers#39215: what the data draws amid an epoch comes out otherwise.

    The trainer loads the states of generators when it has fetched the next batch already.
    """
    for step, alone in trainings[AMID]["alone"].items():
        assert alone["bits"] != trainings[AMID]["whole"]["bits"], step


def test_transformers_alone_resumes_at_an_epoch_with_other_numbers(
    trainings: dict[str, Any],
) -> None:
    """huggingface/transformers#17032: `save_strategy="epoch"` does not restore generators.

    By now it does restore those that all code shares, and no other, such as one of the dataset.
    """
    found = trainings[AT_THE_END]
    assert found["alone"]["5"]["bits"] != found["whole"]["bits"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_computes_the_same_with_the_callback(
    kind: str, trainings: dict[str, Any]
) -> None:
    assert trainings[kind]["whole"] == trainings[kind]["plain"]


GIVEN = """\
import torch


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(1, 1)

    def forward(self, x):
        return {"loss": self.net(x).square().sum()}


model = Model()
dataset = [{"x": torch.tensor([float(index)])} for index in range(8)]
"""


def test_the_lines_of_the_guide_resume_a_training(
    lines_of: Callable[[str, str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = lines_of("checkpoints.md", "Transformers")
    first = lines.replace("resume_from_checkpoint=True", "")
    again = lines.replace("num_train_epochs=3", "num_train_epochs=4")
    subprocess.run([sys.executable, "-c", GIVEN + first + again], check=True, capture_output=True)
    (run,) = run_directories(tmp_path / ".manifest")
    restored = [each for each in run.journals()["main"] if each["kind"] == "restore"]
    assert restored[0]["reason"].startswith(f"{run.id}:")
    state = json.loads((tmp_path / "out" / "checkpoint-4" / "trainer_state.json").read_text())
    assert state["stateful_callbacks"]["ManifestCallback"]["attributes"]["carried"]
