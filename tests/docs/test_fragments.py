"""Lines of the guide that are parts of programs run where such a program would have them.

What they leave to the program stands here. Pages whose lines are whole programs have tests of
their own, and those of integrations stand beside the hooks.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from manifest.rundir import run_directories

GIVEN = {
    "frameworks.md": "batches, update = [1.0, 2.0], lambda batch: 2 * batch",
    "migrating.md": (
        "from types import SimpleNamespace\n"
        "_run, args = SimpleNamespace(_id=1, info={}), SimpleNamespace(lr=0.1)"
    ),
}
CONFIG = {"frameworks.md": {}, "migrating.md": {"sacred_id": 1, "lr": 0.1}}


def run(folder: Path, program: str) -> str:
    """What a program prints; it must end well."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines_of(checkout: Path, page: str) -> str:
    text = (checkout / "docs" / page).read_text(encoding="utf-8")
    return "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))


@pytest.mark.parametrize("page", GIVEN)
def test_lines_that_record_are_recorded(checkout: Path, tmp_path: Path, page: str) -> None:
    run(tmp_path, f"import manifest\n{GIVEN[page]}\n{lines_of(checkout, page)}")
    (recorded,) = run_directories(tmp_path / ".manifest")
    document = recorded.document()
    assert document["sections"].get("config", {}) == CONFIG[page]
    assert document["status"] == "finished"


def test_lines_that_put_a_program_back_tell_what_they_did(checkout: Path, tmp_path: Path) -> None:
    lines = lines_of(checkout, "replay.md")
    before = "import manifest, random\n"
    first = run(tmp_path, f"{before}run = manifest.record(); print(run.id, random.random())")
    run_id, drawn = first.split()
    said = run(tmp_path, before + lines.replace("0199c3f2", run_id) + "print(random.random())")
    assert said.splitlines()[-1] == drawn
