"""Ranks that record themselves are one run, whoever comes first, and whatever happens to one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from manifest import meeting
from manifest.environment.launches import Launch
from manifest.identity import new_run_id
from manifest.rundir import RunDirectory, run_directories

# Each line that it reads is a thing to do; it answers each with the run that it is in.
RANK = """
import sys
import manifest
run = None
for line in sys.stdin:
    if line == "record\\n":
        run = manifest.record(config={"lr": 0.1})
    elif line == "finish\\n":
        run.finish()
    print(run.id, flush=True)
"""
# A shell that starts a rank in a shell of its own, as a wrapper does; the second `:` keeps it.
WRAPPED = ["sh", "-c", '"$0" "$@"; :', sys.executable, "rank.py"]

Start = Callable[..., "Rank"]


class Rank:
    """One rank, which does what it is told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def told(self, what: str) -> str:
        """Let it do something; gives the id of its run."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def ended(self) -> int:
        """Let it end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait()

    def killed(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start ranks by hand, from this process, which stands for a shell."""
    monkeypatch.chdir(tmp_path)
    Path("rank.py").write_text(RANK)
    stack = ExitStack()

    def start(rank: int, *, size: int = 2, command: list[str] | None = None, **more: str) -> Rank:
        told = {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_PORT": "29500"}
        process = subprocess.Popen(
            command or [sys.executable, "rank.py"],
            env={**os.environ, **told, **more},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.enter_context(process)
        stack.callback(process.kill)
        return Rank(process)

    with stack:
        yield start


def runs() -> list[RunDirectory]:
    return run_directories(Path(".manifest"))


def test_the_first_rank_makes_the_run_and_the_last_one_seals_it(start: Start) -> None:
    one, zero = start(1), start(0)
    assert one.told("record") == zero.told("record")
    (run,) = runs()
    assert run.document()["processes"].keys() == {"rank0", "rank1"}
    one.told("finish")
    assert not run.is_sealed(), "rank 0 still records"
    assert run.document()["status"] == "running"
    zero.told("finish")
    assert run.is_sealed()
    document = run.document()
    assert document["status"] == "finished"
    assert document["processes"]["rank1"]["sections"]["config"] == {"lr": 0.1}
    assert list(Path(".manifest/launches").iterdir()) == []


def test_ranks_that_come_at_the_same_moment_are_one_run(start: Start) -> None:
    ranks = [start(rank, size=6) for rank in range(6)]
    for rank in ranks:
        assert rank.process.stdin is not None
        rank.process.stdin.write("record\n")
    for rank in ranks:
        assert rank.process.stdin is not None
        rank.process.stdin.flush()
    ids = {rank.process.stdout.readline() for rank in ranks if rank.process.stdout is not None}
    assert [f"{run.id}\n" for run in runs()] == list(ids)
    assert [rank.ended() for rank in ranks] == [0] * 6
    assert len(runs()[0].document()["processes"]) == 6


def test_a_rank_that_made_a_run_too_late_gives_it_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, late = (
        Launch(key="k", rank=rank, world_size=2, nodes=1, ranks_here=2, may_recur=False)
        for rank in (0, 1)
    )
    made = [RunDirectory.create(tmp_path, new_run_id()) for _ in range(2)]
    for run in made:
        run.claim("run")[1].close()
    monkeypatch.setattr(meeting, "_visits", 0)
    assert meeting.find(tmp_path, late) is None
    assert meeting.offer(tmp_path, first, made[0])
    monkeypatch.setattr(meeting, "_visits", 0)
    assert not meeting.offer(tmp_path, late, made[1])
    found = meeting.find(tmp_path, late)
    assert found is not None
    assert [run.id for run in run_directories(tmp_path)] == [found.id] == [made[0].id]


def test_a_second_run_of_each_rank_is_one_run_again(start: Start) -> None:
    zero, one = start(0), start(1)
    first = zero.told("record")
    zero.told("finish")
    second = zero.told("record")  # long before the other has joined the first
    assert one.told("record") == first != second
    one.told("finish")
    assert one.told("record") == second
    assert (zero.ended(), one.ended()) == (0, 0)
    assert [run.is_sealed() for run in runs()] == [True, True]


def test_a_rank_that_is_killed_keeps_no_other_from_its_record(start: Start) -> None:
    zero, one = start(0), start(1)
    assert zero.told("record") == one.told("record")
    one.killed()
    zero.told("finish")
    (run,) = runs()
    assert run.is_sealed()
    document = run.document()
    assert document["status"] == "crashed", "not all of it ended"
    ended = {name: facts["ended_at"] for name, facts in document["processes"].items()}
    assert ended["rank0"] is not None
    assert ended["rank1"] is None


def test_a_run_whose_other_rank_never_came_is_over_with_its_process(start: Start) -> None:
    zero = start(0)
    zero.told("record")
    assert zero.ended() == 0
    (run,) = runs()
    assert not run.is_sealed(), "the other may still come"
    assert run.seal()["status"] == "finished"


@pytest.mark.parametrize("is_killed", [True, False])
def test_launches_one_after_the_other_from_one_shell_are_apart(
    start: Start, is_killed: bool
) -> None:
    before = start(0)
    first = before.told("record")
    if is_killed:
        before.killed()
    else:
        before.ended()
    one, zero = start(1), start(0)
    assert one.told("record") == zero.told("record") != first


def test_a_helper_that_was_told_the_rank_of_another_process_keeps_its_own_run(
    start: Start,
) -> None:
    zero, helper, one = start(0), start(0), start(1)
    first = zero.told("record")
    assert helper.told("record") != first
    assert one.told("record") == first


def test_launches_side_by_side_are_apart_by_where_they_meet(start: Start) -> None:
    ids = [
        [start(rank, MASTER_PORT=port).told("record") for rank in (0, 1)]
        for port in ("29500", "29501")
    ]
    assert ids[0][0] == ids[0][1] != ids[1][0] == ids[1][1]


def test_launches_of_several_launchers_are_apart_though_all_their_names_are_equal(
    start: Start,
) -> None:
    # Each shell stands for a launcher; its ranks are told the same run id as the other's.
    shell = ["sh", "-c", 'RANK=0 "$0" "$@" <&0 & RANK=1 "$0" "$@" <&0; wait']
    script = "import manifest; print(manifest.record().id, flush=True)"
    told = {"WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "2"}
    said = [
        subprocess.Popen(
            [*shell, sys.executable, "-c", script],
            env={**os.environ, **told},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    ids = [process.communicate()[0].split() for process in said]
    assert ids[0][0] == ids[0][1] != ids[1][0] == ids[1][1]
    assert len(runs()) == 2


def test_ranks_of_a_cluster_meet_though_each_is_wrapped_in_a_shell(start: Start) -> None:
    def step(rank: int) -> dict[str, str]:
        return {
            "SLURM_JOB_ID": "7",
            "SLURM_STEP_ID": "0",
            "SLURM_PROCID": str(rank),
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_STEP_NUM_NODES": "1",
        }

    zero, one = (start(rank, command=WRAPPED, **step(rank)) for rank in (0, 1))
    assert zero.told("record") == one.told("record")
    (run,) = runs()
    assert run.document()["processes"].keys() == {"rank0", "rank1"}


def test_ranks_of_several_machines_are_a_run_on_each_and_said(start: Start) -> None:
    zero = start(0, TORCHELASTIC_RUN_ID="j", GROUP_WORLD_SIZE="2", LOCAL_WORLD_SIZE="1")
    zero.told("record")
    zero.told("finish")
    (run,) = runs()
    assert run.is_sealed(), "the one rank that is here has ended"
    assert any("2 machines" in note["what"] for note in run.document()["notes"])


def test_where_no_link_can_be_made_every_rank_keeps_its_own_run(start: Start) -> None:
    Path(".manifest").mkdir()
    Path(".manifest/launches").write_text("")
    zero, one = start(0), start(1)
    assert zero.told("record") != one.told("record")
    assert (zero.ended(), one.ended()) == (0, 0)


def test_a_link_that_leads_elsewhere_is_not_followed(start: Start, tmp_path: Path) -> None:
    first = start(0)
    first.told("record")
    (link,) = Path(".manifest/launches").iterdir()
    link.unlink()
    link.symlink_to(tmp_path)
    assert start(1).told("record")
    assert sorted(os.listdir(tmp_path)) == [".manifest", "rank.py"]


def test_a_rank_that_ends_by_a_signal_leaves_the_run_to_its_reader(start: Start) -> None:
    zero = start(0)
    zero.told("record")
    zero.process.send_signal(signal.SIGTERM)
    zero.process.wait()
    (run,) = runs()
    assert run.seal()["status"] == "crashed"
