"""The plan names what differs here from where a run was recorded, and what that does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifest.canonical import ABSENT
from manifest.launching import launch
from manifest.models import Manifest
from manifest.needs import machine
from manifest.planning import PlanItem, Wish, make_plan
from manifest.recorded import Recorded, read
from manifest.rundir import RunDirectory

Altered = Callable[..., Recorded]
MANIFEST = str(Path(sys.executable).with_name("manifest"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """One recorded run; the plans of these tests are of altered copies of its manifest."""
    folder = tmp_path_factory.mktemp("planned")
    (folder / "program.py").write_text("import random\nrandom.random()\n")
    here = Path.cwd()
    os.chdir(folder)
    try:
        return launch([sys.executable, "program.py"], base=folder / ".manifest").run
    finally:
        os.chdir(here)


@pytest.fixture
def altered(run: RunDirectory) -> Altered:
    """The recorded run with other facts in some sections."""

    def alter(**sections: dict[str, Any]) -> Recorded:
        manifest = Manifest.model_validate(run.document())
        changed = {
            name: {**manifest.sections.get(name, {}), **values} for name, values in sections.items()
        }
        found = manifest.model_copy(update={"sections": {**manifest.sections, **changed}})
        return read(found, base=run.path.parent.parent)

    return alter


@pytest.fixture
def planned(run: RunDirectory) -> Callable[[Recorded], dict[str, PlanItem]]:
    def plan(recorded: Recorded) -> dict[str, PlanItem]:
        return {item.what: item for item in make_plan(recorded, run, Wish()).items}

    return plan


Planned = Callable[[Recorded], dict[str, PlanItem]]


def test_a_run_of_this_machine_needs_nothing(altered: Altered, run: RunDirectory) -> None:
    plan = make_plan(altered(), run, Wish())
    assert plan.blocking == ()
    # What a pipe held, if the tests are given one, cannot be had.
    assert {item.what for item in plan.items if item.state == "approximate"} <= {"standard input"}


@pytest.mark.parametrize(
    ("key", "before"),
    [
        ("cpu.model", "Another CPU"),
        ("gpu.count", 8),
        ("gpu.driver", "1.2"),
    ],
)
def test_other_hardware_stops_a_strict_replay(
    key: str, before: object, altered: Altered, run: RunDirectory
) -> None:
    plan = make_plan(altered(hardware={key: before}), run, Wish())
    assert [item.what for item in plan.blocking] == [key]


GPU = {
    "gpu.driver": "550",
    "gpu.count": 1,
    "gpu.0.name": "A100",
    "gpu.0.cores": 108,
    "gpu.0.mig": False,
    "gpu.0.uuid": "GPU-1",
}


@pytest.mark.parametrize(
    ("key", "here", "impact"),
    [
        ("gpu.0.name", "H100", "certain"),
        ("gpu.0.cores", 132, "certain"),
        ("gpu.0.mig", True, "certain"),
        ("gpu.driver", "570", "possible"),
        ("gpu.0.uuid", "GPU-2", None),
    ],
)
def test_accelerators_are_compared_by_what_they_compute(
    key: str,
    here: object,
    impact: str | None,
    altered: Altered,
) -> None:
    items = {item.what: item for item in machine.compare(altered(hardware=GPU), GPU | {key: here})}
    assert (items[key].impact if key in items else None) == impact


def test_accelerators_that_the_run_did_not_use_do_not_matter(
    altered: Altered,
) -> None:
    old, settings = GPU | {"gpu.driver": "1", "gpu.count": 4}, {"torch.num_threads": 1}
    idle = altered(hardware=old, settings=settings)
    assert [item.what for item in machine.compare(idle, GPU)] == ["hardware"]
    used = altered(hardware=old, settings=settings | {"torch.cuda.device_count": 4})
    assert {item.what for item in machine.compare(used, GPU)} == {"gpu.driver", "gpu.count"}


def test_accelerators_are_hidden_from_a_program_that_found_none(
    altered: Altered,
) -> None:
    none = dict.fromkeys(("gpu.driver", "gpu.module"), ABSENT)
    without = altered(hardware=none, settings={"torch.num_threads": 1})
    items = {item.what: item for item in machine.compare(without, GPU)}
    assert items["accelerators"].state == "restorable"
    assert "gpu.driver" not in items


def test_fewer_processors_stop_a_replay_and_others_do_not(
    altered: Altered, planned: Planned
) -> None:
    many = planned(altered(environment={"given.affinity": "0-9999"}))["processors"]
    assert (many.state, many.impact) == ("impossible", "certain")
    other = planned(altered(environment={"given.affinity": "9999"}))["processors"]
    assert other.state == "restorable"
    assert "as many as recorded" in other.why


def test_another_python_locale_and_time_zone_are_said(altered: Altered, planned: Planned) -> None:
    elsewhere = {
        "python.version": "3.9.1",
        "process.locale": "LC_CTYPE=tr_TR.UTF-8",
        "process.time_zone": ["XST", "XDT"],
    }
    items = planned(altered(environment=elsewhere))
    assert items["interpreter"].state == "impossible"
    assert (items["locale"].state, items["locale"].impact) == ("approximate", "possible")
    assert (items["time zone"].state, items["time zone"].impact) == ("approximate", "possible")


def test_limits_are_only_information(altered: Altered, planned: Planned) -> None:
    items = planned(altered(environment={"given.umask": "0137", "given.open_files": 7}))
    assert (items["umask"].state, items["umask"].impact) == ("restorable", "informational")
    assert (items["open files"].state, items["open files"].impact) == (
        "approximate",
        "informational",
    )


@pytest.mark.parametrize("kind", ["notebook", "interactive"])
def test_a_session_stops_a_replay(kind: str, altered: Altered, planned: Planned) -> None:
    command = planned(altered(command={"kind": kind}))["command"]
    assert command.state == "impossible"
    assert kind in command.why


@pytest.mark.parametrize(
    ("arguments", "is_read"),
    [
        ([], True),
        (["-"], True),
        (["-u", "-X", "dev", "-", "x"], True),
        (["-c", "pass"], False),
        (["-m", "timeit", "-"], False),
        (["program.py", "-"], False),
        (["-W", "error", "program.py"], False),
    ],
)
def test_a_program_that_came_in_on_standard_input_is_told_from_one_in_a_file(
    arguments: list[str], is_read: bool, altered: Altered, planned: Planned
) -> None:
    given = {"given.stdin": {"kind": "pipe"}}
    argv = [sys.executable, *arguments]
    command = planned(altered(command={"argv": argv}, environment=given))["command"]
    assert (command.state == "impossible") is is_read


def test_check_and_replay_plan_say_the_same(run: RunDirectory) -> None:
    def said(*arguments: str) -> tuple[int, Any]:
        command = [MANIFEST, *arguments, run.id, "--json"]
        environ = {**os.environ, "MANIFEST_DIR": str(run.path.parent.parent)}
        done = subprocess.run(command, capture_output=True, env=environ, check=False)
        return done.returncode, json.loads(done.stdout)

    code, plan = said("check")
    assert (code, plan) == said("replay", "--plan")
    assert (code, plan["is_replayable"]) == (0, True)
    code, plan = said("check", "--set", "env.OMP_NUM_THREADS=1")
    assert ("variable OMP_NUM_THREADS", "changed") in {
        (item["what"], item["state"]) for item in plan["items"]
    }
