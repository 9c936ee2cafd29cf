"""The first ten minutes, as the guide tells them, typed in as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from pathlib import Path

ENDS = {"manifest verify @prev @latest": 1}
"""How commands end that do not end with 0."""

SAYS = {
    "manifest replay @latest": "IDENTICAL",
    "manifest ls": "first",
    "manifest show @latest": "python train.py",
    "manifest diff @prev @latest": "0.2",
    "manifest verify @prev @latest": "step 0",
}


def test_the_first_ten_minutes_go_as_they_are_told(checkout: Path, tmp_path: Path) -> None:
    text = (checkout / "docs" / "start.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "train.py").write_text(program)
    scripts = sysconfig.get_path("scripts")
    environ = {
        **os.environ,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "MANIFEST_DIR": str(tmp_path / ".manifest"),
    }
    commands = re.findall(r"^\$ (.+)$", text, re.MULTILINE)
    assert {*SAYS} <= {*commands}
    for command in commands:
        if command == "manifest server":
            continue  # the tests of the pages start it
        done = subprocess.run(
            ["bash", "-c", command],
            check=False,
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
        )
        assert done.returncode == ENDS.get(command, 0), (command, done.stderr)
        assert SAYS.get(command, "") in done.stdout, command
