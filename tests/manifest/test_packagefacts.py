"""Packages that are installed for editing: programs train with them, and runs differ in them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifest.canonical import digest_bytes
from manifest.diffing import diff_sections
from manifest.launching import launch

Sections = dict[str, Any]

SCRIPT = """\
import sys
import torch
import tiny_lib
from descent import Descent
weight = torch.ones(1, requires_grad=True)
(weight * tiny_lib.scale).sum().backward()
Descent([weight]).step()
if sys.argv[1:] == ["late"]:
    import tiny_lib.late
if sys.argv[1:] == ["child"]:
    import subprocess
    subprocess.run([sys.executable, "-c", "pass"])
"""


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library")
    (folder / "tiny_lib").mkdir()
    (folder / "tiny_lib" / "__init__.py").write_text("scale = 1\n")
    (folder / "tiny_lib" / "late.py").write_text("")
    (folder / "notes.txt").write_text("")
    git(folder, "init", "--quiet")
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=A", "-c", "user.email=a@b", "commit", "--quiet", "-m", "first")
    return folder


@pytest.fixture
def recorded(
    library: Path, descent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Sections]:
    """Run a program that uses the library; what was recorded of it."""
    info = tmp_path / "site" / "tiny_lib-1.0.dist-info"
    info.mkdir(parents=True)
    origin = {"url": library.as_uri(), "dir_info": {"editable": True}}
    (info / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}:{library}")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "script.py").write_text(SCRIPT)
    shutil.copy(descent, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")

    def run(*arguments: str) -> Sections:
        base = tmp_path / "project" / ".manifest"
        done = launch([sys.executable, "script.py", *arguments], base=base)
        document = done.run.document()
        assert (done.exit_code, document["notes"]) == (0, [])
        sections: Sections = document["sections"]
        return sections

    return run


def test_an_edited_library_is_recorded_and_told_apart(
    recorded: Callable[..., Sections], library: Path
) -> None:
    first = recorded("late")
    origin = first["environment"]["packages.origins"]["tiny-lib"]
    assert origin == {
        "url": library.as_uri(),
        "editable": True,
        "commit": git(library, "rev-parse", "HEAD"),
        "tree": git(library, "rev-parse", "HEAD^{tree}"),
        "dirty": False,
    }
    assert first["code"]["installed"]["tiny-lib"] == {
        "tiny_lib/__init__.py": digest_bytes(b"scale = 1\n"),
        "tiny_lib/late.py": digest_bytes(b""),
    }
    assert {"torch", "tiny-lib"} <= set(first["code"]["imported"])
    assert "scikit-learn" not in first["code"]["imported"]
    (library / "tiny_lib" / "__init__.py").write_text("scale = 2\n")
    second = recorded("late")
    found = {each.key: (each.impact, each.reason) for each in diff_sections(first, second)}
    assert {key: impact for key, (impact, _) in found.items() if "tiny" in key} == {
        "installed.tiny-lib.tiny_lib/__init__.py": "certain",
        "packages.origins.tiny-lib.dirty": "informational",
        "packages.origins.tiny-lib.tree": "informational",
    }
    assert "is judged by itself" in found["packages.origins.tiny-lib.tree"][1]


def test_a_process_that_started_others_does_not_say_what_all_imported(
    recorded: Callable[..., Sections],
) -> None:
    assert "imported" not in recorded("child")["code"]
