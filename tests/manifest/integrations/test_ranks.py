"""Loops on one rank and on two: each rank goes on from a checkpoint as the whole loop did.

Here are those of every framework, as the ranks of all of them are started once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "scripts" / "ranks_resume.py"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
KINDS = {
    1: (
        "with=accelerate,of=3.10",
        "with=accelerate,seedable=1,workers=1,of=13",
        "with=accelerate,stateful=1,of=12",
        "with=fabric,of=3.10",
    ),
    2: (
        "with=accelerate,of=3.7",
        "with=accelerate,seedable=1,of=7",
        "with=accelerate,stateful=1,of=7",
        "with=fabric,of=3.5",
        "with=lightning,every=1,of=5",
        "with=transformers,of=5",
    ),
}
"""The kinds of loops, by the number of ranks, each of three epochs."""
LOOPS = [pytest.param((n, kind), id=f"{kind} on {n}") for n in KINDS for kind in KINDS[n]]

Loop = list[Any]
"""What each rank computed."""


@pytest.fixture(scope="module")
def loops(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], Loop]:
    """What each kind of loop computed, by the number of ranks and kind."""
    found: dict[tuple[int, str], Loop] = {}
    for ranks, kinds in KINDS.items():
        folder = tmp_path_factory.mktemp("loops")
        launcher = TORCHRUN if ranks == 2 else ()
        subprocess.run(
            [sys.executable, *launcher, str(SCRIPT), *kinds],
            cwd=folder,
            env={**os.environ, "CHECKPOINTS": str(folder), "OMP_NUM_THREADS": "1"},
            check=True,
            capture_output=True,
        )
        told = (folder / f"found-{rank}.json" for rank in range(ranks))
        computed = zip(*(json.loads(path.read_text()) for path in told), strict=True)
        found |= {(ranks, kind): list(each) for kind, each in zip(kinds, computed, strict=True)}
    return found


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest, loops: dict[tuple[int, str], Loop]) -> Loop:
    """What one kind of loop computed."""
    return loops[request.param]


def of(*frameworks: str) -> pytest.MarkDecorator:
    """Ask only of the loops of some frameworks."""
    kinds = [each for name in frameworks for each in LOOPS if f"with={name}," in str(each.id)]
    return pytest.mark.parametrize("loop", kinds, indirect=True)


def test_each_rank_goes_on_with_the_bits_of_the_whole_loop(loop: Loop) -> None:
    for rank in loop:
        losses = rank["whole"]["losses"]
        for step, resumed in rank["resumed"].items():
            assert 0 < int(step) < len(losses)
            assert resumed == {"losses": losses[int(step) :], "bits": rank["whole"]["bits"]}, step


def test_a_loop_computes_the_same_with_the_hook(loop: Loop) -> None:
    for rank in loop:
        assert rank["whole"] == rank["plain"]


def test_ranks_draw_otherwise(loops: dict[tuple[int, str], Loop]) -> None:
    for kind in ("with=accelerate,of=3.7", "with=lightning,every=1,of=5", "with=transformers,of=5"):
        first, second = (rank["whole"] for rank in loops[2, kind])
        assert len(first["losses"]) == len(second["losses"])
        assert first["losses"] != second["losses"], "or else one snapshot would do for both"
        assert first["bits"] == second["bits"]


@of("accelerate")
def test_accelerate_alone_goes_on_amid_an_epoch_with_other_numbers(loop: Loop) -> None:
    """huggingface/accelerate#4195, #4203 and #3996: the shuffle order is not restored.

    Neither the epoch of the loader nor the generator of its sampler is in a checkpoint. These loops
    pass over batches with `skip_first_batches`, or have Accelerate load its stateful loaders.
    """
    for rank in loop:
        for step, alone in rank["alone"].items():
            if step != "10":  # the end of an epoch, on one rank
                assert alone["bits"] != rank["whole"]["bits"], step


@of("fabric")
def test_fabric_alone_begins_the_epoch_again(loop: Loop) -> None:
    for rank in loop:
        for step, alone in rank["alone"].items():
            assert len(alone["losses"]) > len(rank["whole"]["losses"]) - int(step)


@of("lightning", "transformers")
def test_a_trainer_alone_goes_on_with_other_numbers(loop: Loop) -> None:
    for rank in loop:
        losses = rank["whole"]["losses"]
        assert len(losses) == 9
        assert rank["alone"]["5"]["losses"] != losses[5:]
