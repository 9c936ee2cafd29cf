"""Who started a rank, and what it was told."""

from __future__ import annotations

import pytest

from manifest.environment.launcher import as_given, capture_given, capture_launcher, told_rank

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "8",
    "GROUP_WORLD_SIZE": "2",
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_RESTART_COUNT": "1",
}
SLURM = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "1"}


@pytest.mark.parametrize(
    ("environ", "rank", "facts"),
    [
        (
            TORCHRUN,
            3,
            {"name": "torchrun", "world_size": 8, "nodes": 2, "restarts": 1},
        ),
        (
            {**TORCHRUN, "ACCELERATE_MIXED_PRECISION": "no"},
            3,
            {"name": "accelerate", "world_size": 8, "nodes": 2, "restarts": 1},
        ),
        ({"RANK": "0", "WORLD_SIZE": "2"}, 0, {"name": "other", "world_size": 2}),
        (SLURM, 1, {"name": "slurm", "world_size": 4, "nodes": 1}),
        (
            {**SLURM, **TORCHRUN},
            3,
            {"name": "torchrun", "world_size": 8, "nodes": 2, "restarts": 1},
        ),
        (
            {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"},
            1,
            {"name": "mpi", "world_size": 2},
        ),
        ({}, None, {}),
        ({"RANK": "gold", "WORLD_SIZE": "2"}, None, {}),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, None, {}),  # the script of a batch job
    ],
)
def test_what_each_launcher_tells_is_read(
    environ: dict[str, str], rank: int | None, facts: dict[str, object]
) -> None:
    assert told_rank(environ) == rank
    assert capture_launcher(environ) == {f"launcher.{key}": value for key, value in facts.items()}


def test_a_replay_is_given_what_the_program_was_given_not_what_a_rank_was() -> None:
    given = capture_given({"WORLD_SIZE": "2", "HOME": "/home/me"})
    recorded = {**given, "env.RANK": "0", "env.WORLD_SIZE": "2", "env.OMP_NUM_THREADS": "1"}
    restored = as_given(recorded)
    assert restored["env.WORLD_SIZE"] == "2"
    assert "env.RANK" not in restored
    assert restored["env.OMP_NUM_THREADS"] == "1"
