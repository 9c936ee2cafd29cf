"""The program of docs/resume.md, killed and started again, ends with the bits of the whole run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from manifest.rundir import RunDirectory, run_directories

Plainly = Callable[..., CompletedProcess[str]]
Script = Callable[[str, str], Path]

SAVED = "                    CHECKPOINT,\n                )\n"
KILL = """\
                if step == 20:
                    import os
                    os.kill(os.getpid(), 9)
"""
LOADER = "num_workers=WORKERS"
IMPORT = "from torch import nn"
OPTIMIZER = "torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)"
FIRST = "    first_epoch = step = 0\n"


@pytest.fixture
def program(checkout: Path) -> str:
    page = (checkout / "docs/resume.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert SAVED in code
    assert LOADER in code
    assert FIRST in code
    assert OPTIMIZER in code
    assert IMPORT in code
    return str(code).replace("range(first_epoch, 3)", "range(first_epoch, 2)")  # starts less


def test_a_killed_run_goes_on_with_the_same_bits(
    program: str, script: Script, plainly: Plainly, base: Path
) -> None:
    program = program.replace("WORKERS = 2", "WORKERS = 0")
    whole = until_its_end(program, script, plainly)
    kept = until_it_is_killed(program, script, plainly)
    killed = run_directories(base)[0]

    script("train.py", program)
    assert plainly("train.py").stdout == whole
    resumed = run_directories(base)[0]

    train = script("train.py", re.sub("manifest.replay.*", "pass", program))
    train.with_name("checkpoint.pt").write_bytes(kept)
    without = plainly("train.py").stdout
    assert without.startswith("36 "), "a checkpoint alone begins the epoch again"
    assert without.split(" ", 1)[1] != whole.split(" ", 1)[1]

    says_what_it_kept(killed)
    made = "the loader made at train.py:27"
    says_what_it_continued(resumed, f"{killed.id}:20", made, batches=4)


def test_its_workers_go_on_where_they_were_however_they_are_started(
    program: str, script: Script, plainly: Plainly, base: Path
) -> None:
    # Known by a name, the loader may be made elsewhere.
    program = program.replace(FIRST, f'    run.track("train", loader)\n{FIRST}')
    program = program.replace(OPTIMIZER, "Descent(model.parameters())")
    program = program.replace(IMPORT, f"{IMPORT}; from descent import Descent")  # in no new line
    forking, spawning = (
        program.replace(LOADER, f"{LOADER}, multiprocessing_context={method!r}")
        for method in ("fork", "spawn")
    )
    whole = until_its_end(forking, script, plainly)
    until_it_is_killed(forking, script, plainly)
    killed = run_directories(base)[0]
    says_what_it_kept(killed)

    script("train.py", f"# moved\n{spawning}")
    assert plainly("train.py").stdout == whole
    resumed = run_directories(base)[0]
    says_what_it_continued(resumed, f"{killed.id}:20", "train", batches=4)

    script("train.py", forking)  # from what the resumed run kept, which spawned its workers
    assert plainly("train.py").stdout == whole
    says_what_it_continued(run_directories(base)[0], f"{resumed.id}:30", "train", batches=14)


def until_its_end(program: str, script: Script, plainly: Plainly) -> str:
    train = script("train.py", program)
    done = plainly("train.py")
    assert done.stdout.startswith("32 "), done.stderr
    train.with_name("checkpoint.pt").unlink()
    return done.stdout


def until_it_is_killed(program: str, script: Script, plainly: Plainly) -> bytes:
    """The checkpoint that it leaves."""
    train = script("train.py", program.replace(SAVED, SAVED + KILL))
    assert plainly("train.py").returncode == -9
    return train.with_name("checkpoint.pt").read_bytes()


def says_what_it_kept(killed: RunDirectory) -> None:
    document = killed.document()
    assert document["status"] == "crashed"
    snapshots = document["sections"]["snapshots"]
    assert snapshots["count"] == 2
    assert {name: each["step"] for name, each in snapshots["latest"].items()} == {
        "10": 10,
        "20": 20,
    }
    kept = json.loads(killed.get_blob(snapshots["latest"]["20"]["blob"]))
    (loader,) = kept["loaders"]
    assert loader["position"]["count"] == 4
    assert loader["place"] == "made at train.py:27"


def says_what_it_continued(
    resumed: RunDirectory, reference: str, loader: str, *, batches: int
) -> None:
    document = resumed.document()
    assert (document["status"], document["notes"]) == ("finished", [])
    said = [
        (entry["what"], entry["outcome"], entry["reason"])
        for entry in resumed.journals()["main"]
        if entry["kind"] == "restore"
    ]
    assert ("snapshot", "pending", reference) in said
    assert said[-1] == (loader, "restored", f"continues after {batches} batches")
