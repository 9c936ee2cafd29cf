"""MLflow's runs and manifests name each other; the real library writes into a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from manifest.launching import launch
from manifest.models import Manifest
from manifest.replaying import replay
from manifest.rundir import run_directories

PROGRAM = """
import mlflow

for fold in range(2):
    with mlflow.start_run(run_name=f"fold-{fold}"):
        mlflow.log_param("fold", fold)
"""

RECORDS_ITSELF = """
import manifest, mlflow
from manifest.integrations.mlflow import link

link(None)  # before the program is recorded
manifest.record()
client = mlflow.MlflowClient()
made = client.create_run("0", run_name="of-a-logger")
mlflow.set_tracking_uri("https://me:s3cret@tracker.example")
link(made)
link("no run")
"""

Tags = Mapping[str, str]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where MLflow keeps its runs, as files; the program is in another folder, entered."""
    folder = tmp_path / "mlruns"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", folder.as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MANIFEST_URL", raising=False)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return folder


@pytest.fixture
def script(store: Path) -> Callable[[str], str]:
    def write(source: str) -> str:
        Path("train.py").write_text(source)
        return "train.py"

    return write


def runs_in(store: Path) -> dict[str, Tags]:
    """The tags of each run of MLflow, by its id."""
    return {
        tags.parent.name: {tag.name: tag.read_text() for tag in tags.iterdir()}
        for tags in store.glob("0/*/tags")
    }


def test_the_runs_of_a_recorded_program_lead_to_its_manifest_and_back(
    store: Path, script: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANIFEST_URL", "https://me:s3cret@manifests.example/")
    monkeypatch.setenv("MANIFEST_MODE", "offline")
    base = Path(".manifest")
    launched = launch([sys.executable, script(PROGRAM)], base=base)
    assert launched.exit_code == 0
    found = runs_in(store)
    assert {tags["manifest.run_id"] for tags in found.values()} == {launched.run.id}
    (page,) = {tags["manifest.url"] for tags in found.values()}
    assert page == f"https://manifests.example/runs/{launched.run.id}"
    manifest = Manifest.model_validate(launched.run.document())
    links = manifest.sections["links"]
    assert set(links["mlflow.run_id"]) == set(found)
    assert links["mlflow.run_name"] == ["fold-0", "fold-1"]
    assert links["mlflow.experiment_id"] == "0"
    assert links["mlflow.tracking_uri"] == store.as_uri()
    assert manifest.notes == ()

    verdict = replay(launched.run, base=base)
    again = {name: tags for name, tags in runs_in(store).items() if name not in found}
    assert len(again) == 2
    assert {tags["manifest.run_id"] for tags in again.values()} == {verdict.replay}
    assert {tags["manifest.replay_of"] for tags in again.values()} == {launched.run.id}
    assert all("manifest.replay_of" not in tags for tags in found.values())


def test_a_program_that_is_not_recorded_is_left_alone(
    store: Path, script: Callable[[str], str]
) -> None:
    done = subprocess.run([sys.executable, script(PROGRAM)], check=False, env=dict(os.environ))
    assert done.returncode == 0
    assert len(runs_in(store)) == 2
    assert [t for tags in runs_in(store).values() for t in tags if t.startswith("manifest")] == []


def test_a_run_that_a_client_made_is_linked_by_hand_and_what_is_none_costs_a_note(
    store: Path, script: Callable[[str], str]
) -> None:
    done = subprocess.run([sys.executable, script(RECORDS_ITSELF)], check=False)
    assert done.returncode == 0
    (run,) = run_directories(Path(".manifest"))
    manifest = Manifest.model_validate(run.document())
    (made,) = runs_in(store)
    assert manifest.sections["links"] == {
        "mlflow.run_id": made,
        "mlflow.run_name": "of-a-logger",
        "mlflow.experiment_id": "0",
        "mlflow.tracking_uri": "https://tracker.example",
        "mlflow.url": f"https://tracker.example/#/experiments/0/runs/{made}",
    }
    assert [note.where for note in manifest.notes] == ["links"]


LOGGER = """
import manifest, mlflow
from types import SimpleNamespace

manifest.record()
client = mlflow.MlflowClient()
logger = SimpleNamespace(run_id=client.create_run("0").info.run_id)
"""


def test_the_lines_of_the_guide_link_a_run_of_a_logger(
    store: Path, script: Callable[[str], str], lines_of: Callable[[str, str], str]
) -> None:
    program = LOGGER + lines_of("integrations.md", "MLflow")
    subprocess.run([sys.executable, script(program)], check=True)
    (run,) = run_directories(Path(".manifest"))
    assert [run.document()["sections"]["links"]["mlflow.run_id"]] == list(runs_in(store))


def test_mlflow_finds_the_provider_by_its_entry_point() -> None:
    from importlib.metadata import entry_points

    (found,) = entry_points(group="mlflow.run_context_provider", name="manifest")
    provider = found.load()()
    assert provider.in_context() is False
    assert provider.tags() == {}
