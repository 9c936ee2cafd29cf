"""What ranks of one launch share, and what started them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from manifest.environment.launches import find_launch

TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_WORLD_SIZE": "2",
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_RESTART_COUNT": "0",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "1",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NUM_NODES": "1",
}
MPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}
BY_HAND = {"RANK": "1", "WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("environ", "rank", "here", "nodes", "may_recur"),
    [
        (TORCHRUN, 1, 2, 2, False),
        (SLURM, 1, 2, 1, True),
        ({**SLURM, "SLURM_STEP_NUM_NODES": "2"}, 1, None, 2, True),
        (MPI, 1, 2, 1, True),
        ({"PMI_RANK": "0", "PMI_SIZE": "3", "MPI_LOCALNRANKS": "1"}, 0, 1, 1, True),
        (BY_HAND, 1, 2, 1, True),
    ],
)
def test_a_rank_knows_how_many_are_here(
    environ: dict[str, str], rank: int, here: int | None, nodes: int, may_recur: bool
) -> None:
    launch = find_launch(environ)
    assert launch is not None
    assert (launch.rank, launch.ranks_here, launch.nodes) == (rank, here, nodes)
    assert launch.may_recur is may_recur


@pytest.mark.parametrize("environ", [{}, {"RANK": "0", "WORLD_SIZE": "1"}, {"RANK": "x"}])
def test_a_process_alone_is_of_no_launch(environ: dict[str, str]) -> None:
    assert find_launch(environ) is None


@pytest.mark.parametrize(
    ("environ", "other"),
    [
        (TORCHRUN, {"TORCHELASTIC_RUN_ID": "second"}),
        (TORCHRUN, {"TORCHELASTIC_RESTART_COUNT": "1"}),
        (TORCHRUN, {"MASTER_PORT": "29501"}),
        (SLURM, {"SLURM_STEP_ID": "1"}),
        (SLURM, {"SLURM_JOB_ID": "8"}),
        (BY_HAND, {"MASTER_PORT": "29501"}),
    ],
)
def test_ranks_share_a_key_and_launches_do_not(
    environ: dict[str, str], other: dict[str, str]
) -> None:
    ranks = [{**environ, name: "0"} for name in ("RANK", "SLURM_PROCID") if name in environ]
    keys = {launch.key for told in (environ, *ranks) if (launch := find_launch(told))}
    assert len(keys) == 1
    launch = find_launch({**environ, **other})
    assert launch is not None
    assert launch.key not in keys


ASK = (
    "import dataclasses, json, os; from manifest.environment.launches import find_launch;"
    "print(json.dumps(dataclasses.asdict(find_launch(os.environ))))"
)


@pytest.mark.parametrize("wrapper", ["", 'sh -c \'"$0" "$@"; :\' '], ids=["bare", "in a shell"])
def test_what_started_the_ranks_is_known_through_what_wraps_a_rank(
    wrapper: str, tmp_path: Path
) -> None:
    told = " ".join(f"{name}={value}" for name, value in TORCHRUN.items())
    command = ["sh", "-c", f'env {told} {wrapper}"$0" "$@"; :', sys.executable, "-c", ASK]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "OF_THE_LAUNCHER": "1"},
        stdout=subprocess.PIPE,
        check=True,
    )
    launch = json.loads(done.stdout)
    assert os.path.basename(launch["command"][0]) == "sh"
    assert launch["command"][1:] == command[1:]
    assert launch["folder"] == str(tmp_path)
    assert launch["environ"]["OF_THE_LAUNCHER"] == "1"
    assert "RANK" not in launch["environ"]


def test_a_launcher_of_a_cluster_leaves_no_command() -> None:
    launch = find_launch(SLURM)
    assert launch is not None
    assert launch.command is None
