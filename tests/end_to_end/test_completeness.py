"""What a manifest should hold of a run, one question a test, asked of one real run of two ranks.

The driver of the GPUs is a library with the same functions, built here.
"""

from __future__ import annotations

import base64
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from manifest.canonical import checked_digest, digest_bytes
from manifest.models import Manifest
from manifest.rundir import RunDirectory, run_directories
from manifest.trail import Trail

SCRIPT = Path(__file__).parent / "scripts" / "complete.py"
MANIFEST = str(Path(sys.executable).with_name("manifest"))
COMMAND = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "train.py"]
BINARY = bytes(range(64))


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout that was edited since its commit, in each way in which it can be."""
    folder = tmp_path_factory.mktemp("complete") / "project"
    folder.mkdir()
    shutil.copy(SCRIPT, folder / "train.py")
    (folder / "helper.py").write_text("WIDTH = 8\n")
    (folder / "data.bin").write_bytes(BINARY[::-1])
    (folder / ".gitignore").write_text(".manifest\n__pycache__\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "first")
    (folder / "helper.py").write_text("WIDTH = 4\n")
    (folder / "data.bin").write_bytes(BINARY)
    (folder / "staged.bin").write_bytes(b"\0staged\xff")
    git(folder, "add", "staged.bin")
    (folder / "notes.txt").write_text("untracked\n")
    (folder / "loose.bin").write_bytes(b"\0loose\xff")
    return folder


@pytest.fixture(scope="module")
def run(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, build_driver: Callable[..., str]
) -> RunDirectory:
    """The run, recorded as a user does."""
    driver = Path(build_driver(tmp_path_factory.mktemp("driver")))
    told = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_", "PYTHONPATH", "PYTHONHASHSEED", "GIT_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(told)}
    environ |= {"OMP_NUM_THREADS": "1", "LD_LIBRARY_PATH": str(driver.parent)}
    command = [MANIFEST, "run", "--", *COMMAND, "--lr", "0.1"]
    subprocess.run(command, cwd=folder, env=environ, check=True)
    (run,) = run_directories(folder / ".manifest")
    return run


@pytest.fixture(scope="module")
def manifest(run: RunDirectory) -> Iterator[Manifest]:
    manifest = Manifest.model_validate(run.document())
    assert manifest.status == "finished"
    yield manifest
    assert manifest.notes == ()


def blob(run: RunDirectory, digest: Any) -> bytes:
    return run.get_blob(checked_digest(digest))


# Code.


def test_the_commit(manifest: Manifest, folder: Path) -> None:
    assert manifest.sections["code"]["git.commit"] == git(folder, "rev-parse", "HEAD")
    assert manifest.sections["code"]["git.dirty"] is True


def test_the_uncommitted_diff_with_binary_and_staged_files(
    manifest: Manifest, run: RunDirectory, folder: Path, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    git(folder, "clone", "-q", str(folder), str(clone))
    patch = tmp_path / "patch"
    patch.write_bytes(blob(run, manifest.sections["code"]["git.patch"]))
    git(clone, "apply", str(patch))
    for name in ("helper.py", "data.bin", "staged.bin"):
        assert (clone / name).read_bytes() == (folder / name).read_bytes()


def test_untracked_and_binary_files(manifest: Manifest, run: RunDirectory, folder: Path) -> None:
    untracked = manifest.sections["code"]["git.untracked"]
    assert {"notes.txt", "loose.bin"} <= untracked.keys()
    for name in ("notes.txt", "loose.bin"):
        assert blob(run, untracked[name]) == (folder / name).read_bytes()


def test_the_source_that_was_executed(manifest: Manifest, run: RunDirectory, folder: Path) -> None:
    files = manifest.sections["code"]["files"]
    assert files.keys() == {"train.py", "helper.py"}
    assert all(blob(run, files[name]) == (folder / name).read_bytes() for name in files)


# Surroundings.


def test_packages(manifest: Manifest) -> None:
    packages = manifest.sections["packages"]
    for name in ("torch", "numpy", "xxhash", "manifest-replay"):
        assert packages[name] == version(name)


def test_the_arguments(manifest: Manifest) -> None:
    assert manifest.sections["command"]["argv"] == [*COMMAND, "--lr", "0.1"]
    assert manifest.sections["command"]["cwd"] == "."


def test_environment_variables(manifest: Manifest) -> None:
    environment = manifest.sections["environment"]
    assert environment["env.OMP_NUM_THREADS"] == "1"
    assert environment["env.CUBLAS_WORKSPACE_CONFIG"] == {"$absent": True}
    assert environment["env.LD_LIBRARY_PATH"]


def test_the_interpreter(manifest: Manifest) -> None:
    assert manifest.sections["environment"]["python.version"] == sys.version.split()[0]
    assert manifest.sections["environment"]["python.implementation"] == "cpython"


# Machine.


def test_the_processor(manifest: Manifest) -> None:
    hardware = manifest.sections["hardware"]
    assert hardware["cpu.count"] == os.cpu_count()
    assert hardware["cpu.model"]
    assert hardware["cpu.isa"]


def test_the_gpu_model(manifest: Manifest) -> None:
    hardware = manifest.sections["hardware"]
    assert hardware["gpu.count"] == 2
    assert hardware["gpu.1.name"] == "NVIDIA H100 80GB HBM3"
    assert (hardware["gpu.1.capability"], hardware["gpu.1.cores"]) == ("9.0", 16896)
    assert (hardware["gpu.1.mig"], hardware["gpu.1.uuid"]) == (False, "GPU-1")


def test_the_driver(manifest: Manifest) -> None:
    assert manifest.sections["hardware"]["gpu.driver"] == "580.95.05"


def test_cuda_of_the_driver_and_of_torch_apart(manifest: Manifest) -> None:
    assert manifest.sections["hardware"]["gpu.driver_cuda"] == "13.0"
    assert manifest.sections["settings"]["torch.cuda_version"] == torch.version.cuda


def test_cudnn(manifest: Manifest) -> None:
    cudnn = torch._C._cudnn.getRuntimeVersion() if torch._C._has_cudnn else None
    assert manifest.sections["settings"]["cudnn.version"] == (cudnn and list(cudnn))


def test_the_identity_of_loaded_libraries(manifest: Manifest) -> None:
    environment = manifest.sections["environment"]
    (openmp,) = environment["lib.gomp"]
    assert openmp["file"].startswith("libgomp")
    assert openmp["build"]


# Randomness.


def test_the_seeds(manifest: Manifest) -> None:
    seeds = manifest.sections["seeds"]
    given = {place.partition(" ")[2]: seed for place, seed in seeds["calls"].items()}
    assert given == {
        "random.seed": 11,
        "numpy.random.seed": 12,
        "torch.manual_seed": 13,
        "torch.Generator.manual_seed": 15,
    }
    assert len(bytes.fromhex(seeds["entropy"])) == 32
    assert seeds["hash_seed"].isdigit()


def test_the_state_of_every_generator_at_each_step(manifest: Manifest, run: RunDirectory) -> None:
    process = next(name for name, found in manifest.processes.items() if found.rank == 0)
    end = Trail.open(run.trail_path(process)).final
    assert end is not None
    assert {"python", "numpy.legacy", "torch.cpu"} <= end.rng.keys()
    (own,) = manifest.sections["generators"].values()
    assert (own["kind"], own["digest"][:5]) == ("torch.Generator", "xxh3:")


def test_the_full_state_of_generators_that_exist_when_a_program_calls_record(
    tmp_path: Path,
) -> None:
    program = (
        "import random, numpy, torch, manifest\n"
        "random.seed(11); numpy.random.seed(12); torch.manual_seed(13)\n"
        "manifest.record()\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    (run,) = run_directories(tmp_path / ".manifest")
    generators = run.document()["sections"]["generators"]
    random.seed(11)
    np.random.seed(12)
    numbers = random.getstate()[1]
    assert state(generators["python"])[: 4 * 625] == np.array(numbers, "<u4").tobytes()
    words = np.random.get_state(legacy=False)["state"]["key"]
    assert words.astype("<u4").tobytes() in state(generators["numpy.legacy"])
    seeded = torch.Generator().manual_seed(13).get_state()
    assert state(generators["torch.cpu"]) == seeded.numpy().tobytes()


def state(facts: dict[str, Any]) -> bytes:
    return base64.b64decode(facts["state"]["$bytes"])


def test_determinism_flags_as_they_are_in_effect(manifest: Manifest) -> None:
    settings = manifest.sections["settings"]
    assert settings["torch.deterministic.mode"] == 2
    assert settings["torch.num_threads"] == 1
    assert settings["torch.backends.cudnn.benchmark"] is False
    assert settings["fp32_precision.cuda.matmul"] == "none"


# Training.


def test_loaders_and_samplers(manifest: Manifest) -> None:
    loader = manifest.sections["loaders"]["loader.0"]
    assert (loader["batch_size"], loader["num_workers"], loader["has_generator"]) == (4, 0, True)
    assert loader["sampler"].endswith("DistributedSampler")
    assert (loader["sampler.seed"], loader["sampler.epoch"], loader["sampler.rank"]) == (14, 0, 0)
    assert loader["generator_state"].startswith("xxh3:")
    assert len(loader["base_seed"]) == 1


def test_the_optimizer(manifest: Manifest) -> None:
    optimizer = manifest.sections["training"]["optimizer.0"]
    assert (optimizer["class"], optimizer["lr"]) == ("torch.optim.sgd.SGD", 0.1)
    assert manifest.sections["training"]["autocast"] == {}


def test_the_data(manifest: Manifest, run: RunDirectory, folder: Path) -> None:
    (facts,) = (
        facts for path, facts in manifest.sections["inputs"].items() if path.endswith("data.bin")
    )
    assert facts["size"] == len(BINARY)
    assert facts["blob"] == digest_bytes(BINARY)
    assert blob(run, facts["blob"]) == BINARY


def test_the_configuration(manifest: Manifest) -> None:
    assert manifest.sections["config"] == {"lr": 0.1}


def test_every_rank(manifest: Manifest) -> None:
    ranks = {process.rank: process for process in manifest.processes.values()}
    assert ranks.keys() == {0, 1}
    own = ranks[1].sections
    assert own["loaders"]["loader.0"]["sampler.rank"] == 1
    expected = {"environment", "generators", "hardware", "loaders", "packages", "seeds", "settings"}
    assert expected <= own.keys()


def test_what_each_step_computed(manifest: Manifest) -> None:
    trails = [process.trail for process in manifest.processes.values() if process.trail]
    assert [trail.steps for trail in trails] == [2, 2]
    assert {"rng", "batch", "loss", "grad", "param"} == set(trails[0].streams)
