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
FIRST = "    first_epoch = step = 0\n"


@pytest.fixture
def program(checkout: Path) -> str:
    page = (checkout / "docs/resume.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert SAVED in code
    assert LOADER in code
    return str(code)


@pytest.mark.parametrize(
    ("workers", "method"), [(0, None), (2, "fork"), (2, "spawn")], ids=["0", "fork", "spawn"]
)
def test_a_killed_run_goes_on_with_the_same_bits(
    workers: int, method: str | None, program: str, script: Script, plainly: Plainly, base: Path
) -> None:
    program = program.replace("WORKERS = 2", f"WORKERS = {workers}")
    program = program.replace("range(first_epoch, 3)", "range(first_epoch, 2)")  # starts less
    program = program.replace(LOADER, f"{LOADER}, multiprocessing_context={method!r}")
    if method == "fork":  # known by a name, it may be made elsewhere
        program = program.replace(FIRST, f'    run.track("train", loader)\n{FIRST}')
    train = script("train.py", program)
    checkpoint = train.with_name("checkpoint.pt")

    whole = plainly("train.py")
    assert whole.stdout.startswith("32 "), whole.stderr
    checkpoint.unlink()

    script("train.py", program.replace(SAVED, SAVED + KILL))
    assert plainly("train.py").returncode == -9
    killed = run_directories(base)[0]
    kept = checkpoint.read_bytes()

    script("train.py", f"# moved\n{program}" if method == "fork" else program)
    assert plainly("train.py").stdout == whole.stdout

    if not workers:
        script("train.py", re.sub("manifest.replay.*", "pass", program))
        checkpoint.write_bytes(kept)
        without = plainly("train.py").stdout
        assert without.startswith("36 "), "a checkpoint alone begins the epoch again"
        assert without.split(" ", 1)[1] != whole.stdout.split(" ", 1)[1]

    says_what_it_kept(killed)
    resumed = run_directories(base)[0 if workers else 1]
    name = "train" if method == "fork" else "the loader made at train.py:27"
    says_what_it_continued(resumed, killed.id, name)


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


def says_what_it_continued(resumed: RunDirectory, killed_id: str, loader: str) -> None:
    document = resumed.document()
    assert (document["status"], document["notes"]) == ("finished", [])
    said = [
        (entry["what"], entry["outcome"], entry["reason"])
        for entry in resumed.journals()["main"]
        if entry["kind"] == "restore"
    ]
    assert ("snapshot", "pending", f"{killed_id}:20") in said
    assert said[-1] == (loader, "restored", "continues after 4 batches")
