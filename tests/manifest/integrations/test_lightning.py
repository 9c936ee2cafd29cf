"""A fit that goes on from a checkpoint of Lightning computes what the whole fit did."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifest.environment.variables import restore_variables
from manifest.launching import Launched, launch
from manifest.rundir import run_directories

KINDS = {
    "amid an epoch": "every=1,draws=1,of=3.7",
    "behind the last batch of an epoch": "every=1,of=5",
    "at the end of an epoch": "draws=1,of=5",
    "of a stream, of which a batch is fetched ahead": "stream=1,every=1,of=3.10",
    "counted in steps": "every=3,max_steps=15,of=6.15",
    "amid an epoch, with workers and a distributed sampler": "every=1,distributed=1,workers=1,of=8",
    "after validation": "val=1,of=10",
    "after validation amid an epoch, with workers": "val=0.5,workers=1,of=7",
}
PERSISTENT = "val=1,workers=1,persistent=1,of=5"
UNVALIDATED = "val=1,every=1,of=5"
REFUSED = {PERSISTENT: "persistent_workers=True", UNVALIDATED: "before its validation"}


@pytest.fixture(scope="module")
def fits(program: Callable[..., Any]) -> dict[str, Any]:
    """What was computed of each kind: whole, from checkpoints, and from those without the hook."""
    found = program("lightning_resume.py", *KINDS.values(), *REFUSED)
    return dict(zip([*KINDS, *REFUSED], found, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_goes_on_with_the_bits_of_the_whole_one(kind: str, fits: dict[str, Any]) -> None:
    whole = fits[kind]["whole"]
    assert len(whole["losses"]) == 15
    for step, resumed in fits[kind]["resumed"].items():
        rest = {each: loss for each, loss in whole["losses"].items() if int(each) >= int(step)}
        assert resumed == {"losses": rest, "bits": whole["bits"]}, step


@pytest.mark.parametrize("kind", KINDS)
def test_lightning_alone_goes_on_with_other_numbers(kind: str, fits: dict[str, Any]) -> None:
    """Lightning-AI/pytorch-lightning#17543 and #18780: resuming gives a different model.

    Neither the order of the epoch, nor the states of generators, are in a checkpoint.
    """
    whole = fits[kind]["whole"]
    for step, alone in fits[kind]["alone"].items():
        if int(step) < len(whole["losses"]):
            assert alone["bits"] != whole["bits"], step


@pytest.mark.parametrize("kind", [*KINDS, *REFUSED])
def test_a_fit_computes_the_same_with_the_callback(kind: str, fits: dict[str, Any]) -> None:
    assert fits[kind]["whole"] == fits[kind]["plain"]


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_exact_is_refused(kind: str, fits: dict[str, Any]) -> None:
    assert REFUSED[kind] in fits[kind]["resumed"]["5"]["error"]


FIT = """\
import gc
import sys

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

gc.freeze()  # or all that was imported is gone through with each fit


class Regression(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.Linear(8, 1))

    def training_step(self, batch, index):
        if self.global_step == int(sys.argv[1]):
            raise SystemExit(3)
        return self.net(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(checkpoint=None):
    pl.seed_everything(1, verbose=False)
    model, data = Regression(), TensorDataset(torch.arange(64.0).reshape(16, 4) / 64)
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False,
        callbacks=[ModelCheckpoint("saved", "{step}", save_top_k=-1, every_n_train_steps=3)],
    )
    trainer.fit(model, DataLoader(data, 2, shuffle=True), ckpt_path=checkpoint)
    print([p.detach().numpy().tobytes().hex() for p in model.parameters()])


if __name__ == "__main__":
    fit(*sys.argv[2:])
"""


AGAIN = """\
    fit("saved/step=3.ckpt")
    print("manifest" in torch.load("saved/step=3.ckpt"), sorted(sys.modules))
"""


BOTH = """\
import sys

from fit import fit

try:
    fit()
except SystemExit:
    sys.argv[1] = "-1"
    fit("saved/step=3.ckpt")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fit.py").write_text(FIT)
    return tmp_path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a fit prints without Manifest, and then one from its checkpoint, and what is loaded."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "fit.py").write_text(FIT + AGAIN)
    command = [sys.executable, "fit.py", "-1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    assert not (folder / ".manifest").exists()
    return [line for line in done.stdout.splitlines() if line.startswith(("[", "False", "True"))]


def test_a_fit_that_is_not_recorded_is_left_as_it_is(plain: list[str]) -> None:
    assert plain[2].startswith("False "), "its checkpoint carries nothing"
    assert "'manifest.integrations.automatic'" in plain[2]
    assert "'manifest.integrations.lightning'" not in plain[2]


def test_a_recorded_fit_is_continued_without_a_line(
    folder: Path, plain: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    import torch

    def recorded(*arguments: str) -> Launched:
        return launch([sys.executable, "fit.py", *arguments], base=folder / ".manifest")

    stopped = recorded("5")
    assert stopped.exit_code == 3
    checkpoint = torch.load(folder / "saved/step=3.ckpt")
    assert checkpoint["manifest"] == f"{stopped.run.id}:3"
    capfd.readouterr()

    resumed = recorded("-1", "saved/step=3.ckpt")
    assert capfd.readouterr().out.splitlines()[-1] == plain[0] != plain[1]
    restored = [each for each in resumed.run.journals()["main"] if each["kind"] == "restore"]
    assert restored[-1]["what"] == "lightning.train.0"
    assert restored[-1]["reason"] == "continues after 3 batches"


def test_a_fit_is_left_as_it_is_where_the_user_wants_no_callbacks(
    folder: Path,
    plain: list[str],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    monkeypatch.setenv("MANIFEST_CALLBACKS", "off")
    (folder / "both.py").write_text(BOTH)
    capfd.readouterr()

    resumed = launch([sys.executable, "both.py", "5"], base=folder / ".manifest")

    assert resumed.exit_code == 0
    assert "manifest" not in torch.load(folder / "saved/step=3.ckpt")
    assert capfd.readouterr().out.splitlines()[-1] == plain[1]
    # What repeats it is given the same, whatever is set there.
    variables = resumed.run.document()["sections"]["environment"]
    for there in ({}, {"MANIFEST_CALLBACKS": "on"}):
        assert restore_variables(variables, there)["MANIFEST_CALLBACKS"] == "off"


def test_the_lines_of_the_guide_continue_a_fit(
    lines_of: Callable[[str, str], str], folder: Path
) -> None:
    lines = lines_of("checkpoints.md", "Lightning")
    given = "model, loader = Regression(), DataLoader(TensorDataset(torch.ones(8, 4)), 2)\n"
    program = FIT[: FIT.index("def fit")] + given + lines + lines.replace("=3", "=4")
    (folder / "fit.py").write_text(program)
    subprocess.run([sys.executable, "fit.py", "-1"], capture_output=True, check=True)
    (run,) = run_directories(folder / ".manifest")
    restored = [each for each in run.journals()["main"] if each["kind"] == "restore"]
    assert restored[0]["reason"].startswith(f"{run.id}:")
    assert {each["outcome"] for each in restored[1:]} <= {"restored", "equal already"}
