"""Which variables are recorded, and which of those a replay may be given."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from manifest.canonical import ABSENT
from manifest.environment.variables import (
    capture_variables,
    is_recorded,
    is_restorable,
    not_restored,
    restore_variables,
)

PROGRAM = """
import json, os
from manifest.environment.variables import capture_variables
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
os.environ.pop("PYTHONHASHSEED")
print(json.dumps(capture_variables(os.environ)))
"""


def test_the_environment_at_the_start_is_told_from_what_the_program_changed() -> None:
    environ = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "7", "MKL_CBWR": "AVX2"}
    environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environ, capture_output=True, check=True
    )
    captured = json.loads(answer.stdout)
    assert captured["env.OMP_NUM_THREADS"] == "2"
    assert captured["env_now.OMP_NUM_THREADS"] == "1"
    assert captured["env.CUBLAS_WORKSPACE_CONFIG"] == ABSENT
    assert captured["env_now.CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert captured["env.PYTHONHASHSEED"] == "7"
    assert captured["env_now.PYTHONHASHSEED"] == ABSENT
    assert captured["env.MKL_CBWR"] == "AVX2"
    assert "env_now.MKL_CBWR" not in captured


def test_an_unset_variable_of_consequence_is_recorded_as_absent_and_no_other() -> None:
    captured = capture_variables({}, exec_environ={})
    assert captured["env.NVIDIA_TF32_OVERRIDE"] == ABSENT
    assert "env.NCCL_BUFFSIZE" not in captured
    assert set(map(str, captured.values())) == {str(ABSENT)}


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "USER",
        "DATABASE_URL",
        "AWS_SECRET_ACCESS_KEY",
        "HF_TOKEN",
        "WANDB_API_KEY",
        "PWD",
        "MANIFEST_TOKEN",
        "MANIFEST_RUN_DIR",
        "omp_num_threads",
        "OMP_NUM_THREADS\n",
    ],
)
def test_a_variable_off_the_list_is_not_recorded(name: str) -> None:
    assert not is_recorded(name)
    assert not any(name in key for key in capture_variables({name: "1"}, exec_environ={name: "1"}))


def test_a_secret_that_a_prefix_admits_is_recorded_as_a_stand_in() -> None:
    environ = {"TORCH_HUB_TOKEN": "abc", "SLURM_JWT": "abc", "TOKENIZERS_PARALLELISM": "false"}
    captured = capture_variables(environ, exec_environ=environ, salt=b"salt")
    assert captured["env.TORCH_HUB_TOKEN"] == captured["env.SLURM_JWT"] != "abc"
    assert "$redacted" in captured["env.SLURM_JWT"]
    assert captured["env.TOKENIZERS_PARALLELISM"] == "false"


def test_a_child_has_the_recorded_variables_and_otherwise_the_present_ones() -> None:
    recorded = {
        "env.OMP_NUM_THREADS": "2",
        "env.PYTHONHASHSEED": ABSENT,
        "env.TZ": "Europe/Berlin",
        "env_now.MKL_NUM_THREADS": "1",
        "env.TORCH_HUB_TOKEN": {"$redacted": "00"},
        "python.version": "3.11.7",
    }
    present = {
        "PATH": "/bin",
        "HOME": "/home/me",
        "PYTHONHASHSEED": "5",
        "MKL_NUM_THREADS": "8",
        "TORCH_HUB_TOKEN": "mine",
        "MANIFEST_DIR": "/runs",
    }
    assert restore_variables(recorded, present) == {
        "PATH": "/bin",
        "HOME": "/home/me",
        "OMP_NUM_THREADS": "2",
        "TZ": "Europe/Berlin",
        "TORCH_HUB_TOKEN": "mine",
        "MANIFEST_DIR": "/runs",
    }


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "PATH",
        "BASH_ENV",
        "GIT_DIR",
        "GIT_SSH_COMMAND",
        "HOME",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "PYTHONHOME",
        "PYTHONWARNINGS",
        "PYTHONBREAKPOINT",
        "PYTHONINSPECT",
        "PYTHONPYCACHEPREFIX",
        "PYTHONUSERBASE",
        "PYTHONEXECUTABLE",
        "CUDA_INJECTION64_PATH",
        "NCCL_NET_PLUGIN",
        "NCCL_TUNER_PLUGIN",
        "OMP_TOOL_LIBRARIES",
        "ROCP_TOOL_LIB",
        "TRITON_PTXAS_PATH",
        "TRITON_CACHE_DIR",
        "TORCHINDUCTOR_CACHE_DIR",
        "CUDA_HOME",
        "TORCH_HOME",
        "NCCL_DEBUG_FILE",
        "TORCH_LOGS_OUT",
        "CUDNN_LOGDEST_DBG",
        "SLURM_JOB_ID",
        "TORCHELASTIC_RUN_ID",
        "MASTER_ADDR",
        "MANIFEST_URL",
        "OMP_NUM_THREADS\n",
    ],
)
def test_a_manifest_cannot_set_what_is_run_loaded_or_written(name: str) -> None:
    assert not is_restorable(name)
    assert restore_variables({f"env.{name}": "evil"}, {}) == {}
    assert restore_variables({f"env.{name}": "evil"}, {name: "mine"}) == {name: "mine"}


@pytest.mark.parametrize(
    "value", ["a\0b", "a\nb", "/tmp/evil", "../evil", "a\\b", "1" * 5000, 2, None, ["a"], {"a": 1}]
)
def test_a_value_that_no_such_variable_has_is_not_restored(value: object) -> None:
    assert restore_variables({"env.OMP_PLACES": value}, {}) == {}
    assert restore_variables({"env.TZ": ":/etc/passwd"}, {}) == {}


def test_what_was_not_restored_is_named() -> None:
    recorded = {
        "env.OMP_NUM_THREADS": "2",
        "env.NCCL_ALGO": ABSENT,
        "env.LD_LIBRARY_PATH": "/opt/cuda/lib",
        "env.NCCL_GRAPH_FILE": "/tmp/graph.xml",
        "env.HOME": "/home/me",
        "env_now.MKL_CBWR": "AVX2",
    }
    present = {"HOME": "/home/me", "NCCL_GRAPH_FILE": "/tmp/other.xml"}
    assert not_restored(recorded, present) == ["LD_LIBRARY_PATH", "NCCL_GRAPH_FILE"]
