"""A run that was exported here and taken in elsewhere is replayed there, bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

PROGRAM = """
import json, random, sys
import torch
from descent import Descent
from parts import width
random.seed()
model = torch.nn.Linear(width(), 1)
optimizer = Descent(model.parameters(), lr=json.load(open("config.json"))["lr"])
for _ in range(3):
    optimizer.zero_grad()
    model(torch.randn(4, width()) * random.random()).sum().backward()
    optimizer.step()
"""
ENTRY = "from manifest_client.cli.main import main; main()"


def manifest(folder: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ENTRY, *arguments],
        cwd=folder,
        env={**os.environ, "HOME": str(home), "TMPDIR": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_run_is_replayed_where_neither_its_folder_nor_its_repository_is(
    project: Path, script: Callable[[str, str], Path], tmp_path: Path
) -> None:
    script("train.py", PROGRAM)
    script("parts.py", "def width(): return 3\n")
    git = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for command in (["init", "--quiet"], ["add", "-A"], ["commit", "--quiet", "-m", "first"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    script("config.json", '{"lr": 0.1}')
    script("parts.py", "def width(): return 5\n")
    mine, theirs, there = tmp_path / "mine", tmp_path / "theirs", tmp_path / "there"
    for folder in (mine, theirs, there):
        folder.mkdir()
    ran = manifest(project, mine, "run", "--", sys.executable, "train.py")
    assert ran.returncode == 0, ran.stderr
    archive = tmp_path / "run.tar"
    sent = manifest(project, mine, "export", "@latest", "--format", "archive", "-o", str(archive))
    assert sent.returncode == 0, sent.stderr
    again = manifest(project, mine, "export", "@latest", "-f", "archive", "-o", str(archive))
    assert again.returncode == 2
    assert "--force" in again.stderr
    shutil.rmtree(project)

    taken = manifest(there, theirs, "import", str(archive))
    assert taken.returncode == 0, taken.stderr
    assert Path(taken.stdout.strip()).parent == there / ".manifest" / "runs"
    refused = manifest(there, theirs, "replay", "@latest")
    assert refused.returncode == 2
    assert "someone who packed it into run.tar recorded this run" in refused.stderr
    replayed = manifest(there, theirs, "replay", "@latest", "--yes", "--json")
    assert replayed.returncode == 0, replayed.stderr
    assert json.loads(replayed.stdout)["outcome"] == "identical"
