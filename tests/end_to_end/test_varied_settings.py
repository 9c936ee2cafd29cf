"""Settings that were measured to change bits: each is recorded, and ranked first where it differs.

Real runs of one small training: with each variable in a process of its own, with each choice of the
program in a fork that records itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from manifest.diffing import diff
from manifest.launching import Start, start
from manifest.models import Diff, Difference, Manifest
from manifest.rundir import RunDirectory, run_directories
from manifest.varying import diff_many

SCRIPT = Path(__file__).parent / "scripts" / "varied.py"
FAMILIES = ("OMP_", "GOMP_", "KMP_", "MKL_", "ATEN_", "ONEDNN_", "DNNL_", "OPENBLAS_", "MANIFEST_")

Runs = Mapping[str, Manifest]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("varied")
    shutil.copy(SCRIPT, folder)
    return folder


@pytest.fixture(scope="module")
def environ() -> dict[str, str]:
    """A surrounding in which no variable decides the threads or the kernels."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(FAMILIES)}
    return {**plain, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "2"}


@pytest.fixture(scope="module")
def choices(folder: Path, environ: dict[str, str]) -> Runs:
    """The runs of all that the program chooses, by name."""
    command = [sys.executable, "varied.py", "--sweep"]
    subprocess.run(command, cwd=folder, env=environ, check=True)
    runs = [read(run) for run in run_directories(folder / ".manifest")]
    return {run.name or "": run for run in runs}


@pytest.fixture(scope="module")
def inherited(folder: Path, environ: dict[str, str]) -> Inherited:
    """Runs of the program with a variable set for it, each made when it is asked for."""
    return Inherited(folder, environ)


class Inherited:
    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._folder, self._environ = folder, environ
        self._runs: dict[tuple[str, ...], Manifest] = {}

    def run(self, *variables: str) -> Manifest:
        if variables not in self._runs:
            set_too = dict(variable.split("=", 1) for variable in variables)
            how = Start(
                command=[sys.executable, "varied.py"],
                folder=self._folder,
                environ={**self._environ, **set_too},
                entropy=bytes(32),
            )
            launched = start(how, base=self._folder / "inherited")
            assert launched.exit_code == 0
            self._runs[variables] = read(launched.run)
        return self._runs[variables]


def read(run: RunDirectory) -> Manifest:
    manifest = Manifest.model_validate(run.document())
    assert [note for note in manifest.notes if not note.where.startswith("code")] == []
    return manifest


def first(found: Diff) -> Difference:
    assert found.differences[0].reason
    assert found.differences[0].source
    return found.differences[0]


@pytest.mark.parametrize(
    ("choice", "key", "before", "after", "impact"),
    [
        ("threads", "torch.num_threads", 2, 1, "certain"),
        ("mkldnn", "torch.backends.mkldnn.enabled", True, False, "certain"),
        ("medium", "torch.float32_matmul_precision", "highest", "medium", "certain"),
        ("bf16", "fp32_precision.generic.all", "none", "bf16", "certain"),
        ("dtype", "torch.default_dtype", "torch.float32", "torch.float64", "certain"),
        ("deterministic", "torch.deterministic.mode", 0, 2, "certain"),
        ("fused", "optimizer.0.fused", None, True, "certain"),
        ("rate", "optimizer.0.lr", 0.001, 0.002, "certain"),
        ("foreach", "optimizer.0.foreach", None, True, "possible"),
        ("autocast", "autocast.cpu", {"$absent": True}, "torch.bfloat16", "certain"),
        ("channels_last", "optimizer.0.channels_last", 0, 1, "certain"),
        ("workers", "loader.0.num_workers", 0, 2, "certain"),
        ("batch_size", "loader.0.batch_size", 6, 5, "certain"),
        ("in_order", "loader.0.in_order", True, False, "certain"),
        ("drop_last", "loader.0.drop_last", False, True, "certain"),
        ("shuffle", "loader.0.sampler", "RandomSampler", "SequentialSampler", "certain"),
    ],
)
def test_a_choice_of_the_program_that_changes_bits_is_first(
    choices: Runs, choice: str, key: str, before: Any, after: Any, impact: str
) -> None:
    found = diff(choices["first"], choices[choice])
    difference = first(found)
    assert (difference.key, difference.impact) == (key, impact)
    assert [short(value) for value in (difference.before, difference.after)] == [before, after]
    assert f"1 difference {'changes' if impact == 'certain' else 'can change'} results: {key}" in (
        found.conclusion
    )


def short(value: Any) -> Any:
    return value.rpartition("sampler.")[2] if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("variable", "key", "impact"),
    [
        ("OMP_NUM_THREADS=1", "torch.num_threads", "certain"),
        ("MKL_NUM_THREADS=1", "torch.num_threads", "certain"),
        ("ATEN_CPU_CAPABILITY=default", "torch.cpu.capability", "certain"),
        ("ONEDNN_MAX_CPU_ISA=AVX2", "env.ONEDNN_MAX_CPU_ISA", "certain"),
        ("DNNL_MAX_CPU_ISA=AVX2", "env.DNNL_MAX_CPU_ISA", "certain"),
        ("MKL_CBWR=COMPATIBLE", "env.MKL_CBWR", "certain"),
        ("OMP_DYNAMIC=true", "env.OMP_DYNAMIC", "certain"),
        ("PYTHONHASHSEED=1", "hash_seed", "possible"),
    ],
)
def test_a_variable_that_changes_bits_is_first(
    inherited: Inherited, variable: str, key: str, impact: str
) -> None:
    found = diff(inherited.run(), inherited.run(variable))
    difference = first(found)
    assert (difference.key, difference.impact) == (key, impact)
    assert difference.before != difference.after
    name, _, value = variable.partition("=")
    assert inherited.run(variable).sections["environment"][f"env.{name}"] == value
    assert f"env.{name}" in inherited.run().sections["environment"]
    assert name in found.conclusion


@pytest.mark.parametrize("choice", ["pin_memory", "interop"])
def test_what_changes_speed_alone_is_never_certain(choices: Runs, choice: str) -> None:
    found = diff(choices["first"], choices[choice])
    keys = {each.key: each.impact for each in found.differences}
    assert {"pin_memory": "loader.0.pin_memory", "interop": "torch.num_interop_threads"}[
        choice
    ] in keys
    assert "certain" not in keys.values()


def test_two_runs_of_one_program_differ_in_nothing(choices: Runs, inherited: Inherited) -> None:
    found = diff(choices["first"], choices["again"])
    assert {each.impact for each in found.differences} <= {"informational"}
    assert found.conclusion == "Nothing that can change results differs."
    again = inherited.run("OMP_NUM_THREADS=2")  # as it is anyway
    assert diff(inherited.run(), again).conclusion == "No recorded difference."


def test_many_runs_are_compared_with_the_first(choices: Runs) -> None:
    names = ("first", "threads", "fused", "again")
    rows = diff_many([choices[name] for name in names])
    assert [(row.key, row.values) for row in rows if row.impact == "certain"] == [
        ("torch.num_threads", (2, 1, 2, 2)),
        ("optimizer.0.fused", (None, None, True, None)),
    ]
