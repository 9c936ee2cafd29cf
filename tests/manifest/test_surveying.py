"""What a survey records of a repository and the submodules in it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from manifest.canonical import ABSENT
from manifest.diffing import diff_sections
from manifest.identity import new_run_id
from manifest.rundir import RunDirectory
from manifest.surveying import survey


class Listener:
    def __init__(self) -> None:
        self.sections: dict[str, dict[str, Any]] = {}
        self.notes: list[tuple[str, object]] = []

    def section(self, name: str, values: dict[str, Any]) -> None:
        self.sections.setdefault(name, {}).update(values)

    def note(self, where: str, what: object) -> None:
        self.notes.append((where, what))


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "protocol.file.allow=always", *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()


def repository(folder: Path) -> Path:
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "model.py").write_text("depth = 1\n")
    git(folder, "add", "-A")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


def test_uncommitted_changes_of_submodules_are_kept_and_differ(tmp_path: Path) -> None:
    project, library = repository(tmp_path / "project"), repository(tmp_path / "library")
    git(project, "submodule", "--quiet", "add", str(library), "library")
    git(project, "commit", "--quiet", "-m", "with a submodule")
    run = RunDirectory.create(tmp_path / ".manifest", new_run_id())
    before, after = Listener(), Listener()
    survey(before, run, project)
    clean = before.sections["code"]["git.submodules"]["library"]
    assert clean["commit"] == git(library, "rev-parse", "HEAD")
    assert (clean["dirty"], clean["patch"], clean["untracked"]) == (False, ABSENT, ABSENT)
    (project / "library" / "model.py").write_text("depth = 2\n")
    (project / "library" / "new.py").write_text("x = 1\n")
    survey(after, run, project)
    assert before.notes == after.notes == []
    changed = after.sections["code"]["git.submodules"]["library"]
    assert b"+depth = 2" in run.get_blob(changed["patch"])
    assert run.get_blob(changed["untracked"]["new.py"]) == b"x = 1\n"
    code = [{"code": each.sections["code"]} for each in (before, after)]
    found = {each.key: each.impact for each in diff_sections(*code)}
    assert found == {
        "git.dirty": "possible",
        "git.submodules.library.dirty": "possible",
        "git.submodules.library.patch": "possible",
        "git.submodules.library.tree": "possible",
        "git.submodules.library.untracked.new.py": "possible",
    }
    for each in code:
        each["code"]["files"] = {"library/model.py": "sha256:0"}
    assert {each.impact for each in diff_sections(*code)} == {"informational"}
