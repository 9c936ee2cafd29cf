"""Ranks: which processes they are, which comes first, what they have otherwise, who parts first."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from manifest import ranks
from manifest.models import Manifest
from manifest.planning import Plan, Wish, make_plan
from manifest.recorded import read
from manifest.rundir import RunDirectory
from manifest.verdicts import judge

Made = Callable[..., RunDirectory]


def manifest_of(run: RunDirectory) -> Manifest:
    return Manifest.model_validate(run.document())


TORCHRUN = {"main": (None, None, 0), "main.x1": (1, 1, 6), "main.x0": (0, 0, 6)}


def test_ranks_are_named_in_their_order_and_the_launcher_is_none(made: Made) -> None:
    manifest = manifest_of(made(TORCHRUN))
    assert ranks.names(manifest) == {"main.x0": "rank 0", "main.x1": "rank 1"}
    assert manifest.processes.keys() == {"main.x0", "main.x1"}
    assert manifest.processes["main.x0"].sections == {}, "those of rank 0 are the run's"


def test_helpers_of_a_rank_inherit_its_variables_and_are_no_ranks(made: Made) -> None:
    helped = {**TORCHRUN, "main.x0.x0": (0, None, 0), "main.x1.f0": (None, None, 0)}
    assert ranks.names(manifest_of(made(helped))) == {"main.x0": "rank 0", "main.x1": "rank 1"}


def test_what_a_process_joined_counts_more_than_what_it_was_told(made: Made) -> None:
    spawned = {"main": (0, None, 0), "main.f0": (0, 1, 3), "main.f1": (0, 0, 3)}
    assert ranks.names(manifest_of(made(spawned))) == {"main.f1": "rank 0", "main.f0": "rank 1"}


def test_a_rank_that_was_started_again_has_a_name_of_its_own(made: Made) -> None:
    restarted = {"main.x0": (0, 0, 2), "main.x1": (1, 1, 2), "main.x2": (0, 0, 6)}
    assert list(ranks.names(manifest_of(made(restarted))).values()) == [
        "rank 0",
        "rank 0~1",
        "rank 1",
    ]


def test_a_program_of_one_process_has_no_ranks(made: Made) -> None:
    manifest = manifest_of(made({"main": (None, None, 3)}))
    assert ranks.names(manifest) == {}
    assert ranks.differences(manifest) == {}


def test_ranks_that_differ_are_shown_and_what_tells_them_apart_is_not(made: Made) -> None:
    run = made(
        {**TORCHRUN, "main.x2": (2, 2, 6)},
        environments={
            "main.x0": {"env.RANK": "0", "env.OMP_NUM_THREADS": "4"},
            "main.x1": {"env.RANK": "1", "env.OMP_NUM_THREADS": "4"},
            "main.x2": {"env.RANK": "2", "env.OMP_NUM_THREADS": "1"},
        },
    )
    found = ranks.differences(manifest_of(run))
    assert {name: [item.key for item in items] for name, items in found.items()} == {
        "rank 1": [],
        "rank 2": ["env.OMP_NUM_THREADS"],
    }


def test_the_rank_that_parted_first_is_named_though_all_share_its_gradients(made: Made) -> None:
    other = b"other bits here!"
    spread = {
        (name, step, stream): other
        for name in ("main.x0", "main.x1")
        for step in (3, 4, 5)
        for stream in ("grad", "param")
    }
    again = made(TORCHRUN, changed={**spread, ("main.x1", 3, "batch"): other})
    verdict = judge(made(TORCHRUN), again)
    assert verdict.outcome == "diverged"
    assert verdict.sentence.startswith("on rank 1, equal to step 2; at step 3 the batch differs")


@pytest.mark.parametrize(
    ("again", "said"),
    [
        ({**TORCHRUN, "main.x1": (1, 1, 4)}, "in the replay rank 1 ended after 4 of 6 steps"),
        ({"main.x0": (0, 0, 6)}, "in the replay rank 1 ended after 0 of 6 steps"),
    ],
)
def test_a_replay_that_lacks_steps_of_one_rank_is_not_identical(
    again: dict[str, tuple[int, int, int]], said: str, made: Made
) -> None:
    verdict = judge(made(TORCHRUN), made(again))
    assert verdict.outcome == "diverged"
    assert said in verdict.sentence


def test_ranks_are_compared_by_rank_whatever_their_processes_are_called(made: Made) -> None:
    renamed = {"main": (None, None, 0), "main.x4": (0, 0, 6), "main.x5": (1, 1, 6)}
    assert judge(made(TORCHRUN), made(renamed)).outcome == "identical"


@pytest.mark.parametrize(
    ("mode", "environment", "started", "said"),
    [
        ("record", {"launcher.world_size": 2}, None, "what started them is not known"),
        ("record", {"launcher.world_size": 4}, 4, "2 of 4 ranks recorded themselves"),
        ("run", {"launcher.world_size": 4, "launcher.nodes": 2}, None, "on 2 machines"),
    ],
)
def test_ranks_that_a_replay_cannot_bring_together_are_said_before_it_waits_for_them(
    mode: str, environment: dict[str, int], started: int | None, said: str, made: Made
) -> None:
    found = plan_of(made(TORCHRUN), mode, environment, started)
    assert any(item.what == "ranks" and said in item.why for item in found.blocking)


def test_ranks_that_recorded_themselves_are_started_again_by_their_launcher(made: Made) -> None:
    found = plan_of(made(TORCHRUN), "record", {"launcher.world_size": 2}, 2)
    (item,) = (item for item in found.items if item.what == "ranks")
    assert (item.state, item in found.blocking) == ("restorable", False)


def plan_of(run: RunDirectory, mode: str, environment: dict[str, int], started: int | None) -> Plan:
    manifest = manifest_of(run)
    command = {**manifest.sections["command"], **({"ranks": started} if started else {})}
    sections = {**manifest.sections, "command": command, "environment": environment}
    changed = manifest.model_copy(update={"mode": mode, "sections": sections})
    return make_plan(read(changed), run, Wish())
