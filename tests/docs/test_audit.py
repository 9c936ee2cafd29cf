"""The commands of docs/audit.md, typed in as they stand there, with its files beside them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def page(checkout: Path) -> str:
    return (checkout / "docs" / "audit.md").read_text(encoding="utf-8")


@pytest.fixture
def project(page: str, tmp_path: Path) -> Path:
    for name, program in re.findall(r"```python\n# (\S+)\n(.*?)```", page, re.DOTALL):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n{program}")
    return tmp_path


def test_the_commands_do_what_the_page_says(page: str, project: Path) -> None:
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    commands = re.findall(r"^\$ (.+)$", page, re.MULTILINE)
    said = {}
    for command in commands:
        done = subprocess.run(
            command.split(), cwd=project, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        said[command] = done.stdout
    audit, doctor, write, compare = commands
    assert said[audit].startswith(re.findall(r"```text\n(.*?)```", page, re.DOTALL)[0])
    assert said[doctor].startswith("READY")
    (golden,) = re.findall(r"`(tests/goldens/\S+)`", page)
    assert golden in said[write]
    assert (project / golden).stat().st_size < 8_000
    assert "1 passed" in said[compare]
