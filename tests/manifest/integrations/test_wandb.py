"""W&B's runs and manifests name each other; the real library, without a network."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from manifest.models import Manifest
from manifest.rundir import run_directories

PROGRAM = """
import manifest, wandb
from manifest.integrations.wandb import link

run = wandb.init(project="digits", config={"manifest": "of an earlier run", "lr": 0.1})
link(run)  # the program is not recorded yet
assert run.config["manifest"] == "of an earlier run"
recorded = manifest.record()
link(run)
link(object())
assert dict(run.config) == {"manifest": recorded.id, "lr": 0.1}
print("run", run.id)
"""

STAND_INS = """
import manifest, wandb
from manifest.integrations.wandb import link

class AsInLightning:  # for each rank but the first
    def nothing(self, *args, **kwargs): pass
    def __getattr__(self, name): return self.nothing

manifest.record()
link(AsInLightning())
link(wandb.init(mode="disabled", project="digits"))
"""


@pytest.fixture
def python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Run source in an empty folder, where W&B reaches nobody."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.chdir(tmp_path)

    def run(source: str) -> subprocess.CompletedProcess[str]:
        Path("train.py").write_text(source)
        return subprocess.run(
            [sys.executable, "train.py"], capture_output=True, text=True, check=False
        )

    return run


def test_a_run_of_wandb_and_its_manifest_name_each_other(
    python: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    done = python(PROGRAM)
    assert done.returncode == 0, done.stderr
    (found,) = re.findall(r"^run (\w+)$", done.stdout, re.MULTILINE)
    (run,) = run_directories(Path(".manifest"))
    manifest = Manifest.model_validate(run.document())
    assert manifest.sections["links"] == {"wandb.run_id": found, "wandb.project": "digits"}
    assert [note.where for note in manifest.notes] == ["links"], "of the object that is no run"


def test_what_stands_in_for_a_run_is_not_linked(
    python: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    done = python(STAND_INS)
    assert done.returncode == 0, done.stderr
    (run,) = run_directories(Path(".manifest"))
    document = run.document()
    assert "links" not in document["sections"]
    assert document["notes"] == []


def test_the_line_of_the_guide_is_enough(
    python: Callable[[str], subprocess.CompletedProcess[str]], checkout: Path
) -> None:
    text = (checkout / "docs" / "integrations.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n([^`]*wandb.init[^`]*)```", text)
    done = python(f"import manifest\nmanifest.record()\n{source}")
    assert done.returncode == 0, done.stderr
    (run,) = run_directories(Path(".manifest"))
    assert run.document()["sections"]["links"]["wandb.project"] == "digits"
