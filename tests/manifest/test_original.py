"""What a replay finds recorded of its own process, and what it makes of what is not there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifest.journal import encode_entry
from manifest.launching import launch
from manifest.models import Restore, Verdict
from manifest.original import original_of
from manifest.replaying import replay
from manifest.rundir import RunDirectory, run_directories

Replayed = Callable[..., dict[str, Restore]]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the runs of a project are kept, whose folder is entered."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".manifest"


@pytest.fixture
def recorded(base: Path) -> Callable[[str], RunDirectory]:
    """Record source that is run from its start."""

    def record(source: str) -> RunDirectory:
        Path("train.py").write_text(source)
        return launch([sys.executable, "train.py"], base=base).run

    return record


@pytest.fixture
def called(base: Path) -> Callable[[str], RunDirectory]:
    """Record source that calls `record()`."""

    def record(source: str) -> RunDirectory:
        Path("train.py").write_text(source)
        subprocess.run([sys.executable, "train.py"], check=True)
        (run,) = run_directories(base)
        return run

    return record


def restores(verdict: Verdict) -> dict[str, Restore]:
    return {item.what: item for item in verdict.restores}


def rewrite(run: RunDirectory, process: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Let a journal say something else, with every check sum right."""
    entries = run.entries_of(process)
    for entry in entries:
        change(entry)
    data = b"".join(encode_entry(entry) for entry in entries)
    (run.path / "journal" / f"{process}.jsonl").write_bytes(data)


CLOCK = "import random, time\nrandom.seed(time.time_ns())\nprint(random.random())\n"


def test_a_seed_is_given_again(
    recorded: Callable[[str], RunDirectory], base: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = recorded(CLOCK)
    first = capfd.readouterr().out
    found = restores(replay(run, base=base))
    assert capfd.readouterr().out == first
    assert found["train.py:2 random.seed"].outcome == "restored"


def test_a_fork_and_its_parent_each_get_the_seeds_of_their_own(
    recorded: Callable[[str], RunDirectory], base: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = recorded(
        "import os, random, time\n"
        "def draw():\n"
        "    random.seed(time.time_ns())\n"
        "    print(random.random(), flush=True)\n"
        "draw()\n"
        "if os.fork() == 0:\n"
        "    draw()\n"
        "    draw()\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "draw()\n"
    )
    first = capfd.readouterr().out
    item = restores(replay(run, base=base))["train.py:3 random.seed"]
    assert capfd.readouterr().out == first
    assert (item.outcome, item.number) == ("restored", 4)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("\n" + CLOCK, "no seed was recorded at this place"),
        (CLOCK + "# another\n", "its source was changed since"),
    ],
)
def test_changed_source_is_given_no_recorded_seed(
    recorded: Callable[[str], RunDirectory], base: Path, source: str, reason: str
) -> None:
    run = recorded(CLOCK)
    Path("train.py").write_text(source)
    verdict = replay(run, base=base, in_place=True, best_effort=True)
    (item,) = verdict.restores
    assert (item.outcome, item.reason) == ("skipped", reason)


def test_seeds_beyond_those_that_are_kept_are_told(
    recorded: Callable[[str], RunDirectory], base: Path
) -> None:
    places = "random.seed(time.time_ns())\n" * 70
    loop = "for _ in range(502): random.seed(time.time_ns())\n"
    verdict = replay(recorded("import random, time\n" + loop + places), base=base)
    beyond = {(i.what, i.reason): i for i in verdict.restores if i.outcome == "skipped"}
    assert [reason for _, reason in beyond] == [
        "only the first 500 seeds of a place are kept",
        "seeds of more than 64 places are not kept",
    ]
    again = {item.what: item.number for item in verdict.restores if item.outcome == "restored"}
    assert again.pop("train.py:2 random.seed") == 500
    assert len(again) == 63


def test_a_seed_that_is_not_kept_exactly_is_told(
    recorded: Callable[[str], RunDirectory], base: Path
) -> None:
    run = recorded("import random, time\nrandom.seed(str(time.time_ns()) * 20)\n")
    item = restores(replay(run, base=base))["train.py:2 random.seed"]
    assert item.outcome == "skipped"
    assert "cannot be given" in item.reason


def test_an_equal_seed_and_a_fixed_one_are_not_told(
    recorded: Callable[[str], RunDirectory], base: Path
) -> None:
    run = recorded("import random\nrandom.seed(5)\nrandom.Random('x')\n")
    assert replay(run, base=base).restores == ()


def test_a_seed_that_the_library_does_not_take_is_told_and_the_program_goes_on(
    recorded: Callable[[str], RunDirectory], base: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = recorded(
        "import os, numpy as np\nnp.random.seed(os.getpid())\nnp.random.rand()\nprint('went on')\n"
    )

    def make_negative(entry: dict[str, Any]) -> None:
        if entry["kind"] == "seed":
            entry["exact"] = -1

    rewrite(run, "main", make_negative)
    capfd.readouterr()
    item = restores(replay(run, base=base))["train.py:2 numpy.random.seed"]
    assert item.outcome == "failed"
    assert "not taken" in item.reason
    assert capfd.readouterr().out == "went on\n"


RECORDED = """\
import random
random.random()
import manifest
run = manifest.record()
run.track("own", own := random.Random())
print(random.random(), own.random())
"""


def test_states_are_put_back_and_what_was_before_is_told(
    called: Callable[[str], RunDirectory], base: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = called(RECORDED)
    first = capfd.readouterr().out
    found = restores(replay(run, base=base))
    assert capfd.readouterr().out == first
    assert found["python"].outcome == "restored"
    assert "drawn from it before" in found["python"].reason
    assert found["own"].outcome == "equal already", "it began from the recorded entropy"


@pytest.mark.parametrize("state", ["", "AAAA", "no base64", None])
def test_a_broken_state_is_not_set_and_the_replay_is_recorded(
    called: Callable[[str], RunDirectory], base: Path, state: str | None
) -> None:
    run = called(RECORDED)

    def break_state(entry: dict[str, Any]) -> None:
        if entry.get("section") == "generators":
            for generator in entry["values"].values():
                if "state" in generator:
                    generator["state"] = {"$bytes": state}

    rewrite(run, "main", break_state)
    verdict = replay(run, base=base)
    found = restores(verdict)
    assert found["generators"].outcome == "failed"
    assert "none was set" in found["generators"].reason
    assert found["own"].outcome == "failed"
    assert not any(item.outcome == "restored" for item in verdict.restores)
    again = RunDirectory(run.path.with_name(verdict.replay or "")).document()
    assert again["status"] == "finished"
    assert again["sections"]["generators"]["python"]["state"]["$bytes"] not in ("", state)


def test_an_original_that_is_gone_costs_the_program_nothing(
    recorded: Callable[[str], RunDirectory], base: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = recorded(CLOCK)
    run.document()
    for journal in (run.path / "journal").glob("main*"):
        journal.unlink()
    capfd.readouterr()
    verdict = replay(run, base=base)
    assert restores(verdict)["train.py:2 random.seed"].outcome == "skipped"
    assert len(capfd.readouterr().out.splitlines()) == 1


def test_only_a_replay_of_this_run_repeats_it(
    recorded: Callable[[str], RunDirectory], base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = recorded(CLOCK)
    environ = {"MANIFEST_REPLAY": str(run.path)}
    assert original_of({"replay_of": None}, "main", environ) is None
    assert original_of({"replay_of": "another"}, "main", environ) is None
    assert original_of({"replay_of": run.id}, "main", environ) is not None
    assert original_of({"replay_of": run.id}, "main", {}) is None
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    other = launch([sys.executable, "train.py"], base=base).run
    assert "restores" not in other.document()
