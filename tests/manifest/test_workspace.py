"""Workspaces: the project as it was, and no way out of it."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from manifest.canonical import Digest
from manifest.environment.source import capture_source
from manifest.errors import NotReplayable
from manifest.identity import new_run_id
from manifest.rundir import RunDirectory
from manifest.workspace import Project, build, confined


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "base", new_run_id())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def project(root: Path, **fields: object) -> Project:
    known: dict[str, object] = {
        "sources": {},
        "inputs": frozenset(),
        "outputs": frozenset(),
        "started_at_ns": time.time_ns() + 10**9,
    }
    return Project(root=root, **{**known, **fields})  # type: ignore[arg-type]


def test_recorded_source_is_written_and_the_rest_is_linked(
    root: Path, run: RunDirectory, tmp_path: Path
) -> None:
    (root / "train.py").write_text("edited since")
    (root / "data").mkdir()
    (root / "data" / "a.bin").write_bytes(b"data")
    sources = {"train.py": run.put_blob(b"as recorded"), "gone.py": run.put_blob(b"deleted since")}
    made = build(project(root, sources=sources), run, tmp_path / "workspace").root
    assert (made / "train.py").read_text() == "as recorded"
    assert not (made / "train.py").is_symlink()
    assert (made / "gone.py").read_text() == "deleted since"
    assert (made / "data" / "a.bin").read_bytes() == b"data"


def test_what_the_run_wrote_is_left_out(root: Path, run: RunDirectory, tmp_path: Path) -> None:
    for name in ("noticed.pt", "unnoticed.pt", "data.bin", "cache.bin"):
        (root / name).write_bytes(b"x")
    before = time.time_ns() - 10**10
    os.utime(root / "data.bin", ns=(before, before))
    os.utime(root / "noticed.pt", ns=(before, before))
    made = build(
        project(
            root,
            outputs=frozenset({"noticed.pt"}),
            inputs=frozenset({"cache.bin"}),
            started_at_ns=before + 10**9,
        ),
        run,
        tmp_path / "workspace",
    ).root
    assert sorted(path.name for path in made.iterdir()) == ["cache.bin", "data.bin"]


def test_what_the_run_wrote_while_git_was_read_is_left_out_too(
    root: Path, run: RunDirectory, tmp_path: Path
) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", root, *arguments], capture_output=True, check=True)

    (root / "train.py").write_text("tracked")
    git("init", "--quiet")
    git("add", "-A")
    git("commit", "--quiet", "-m", "first")
    (root / "notes.txt").write_text("not tracked")
    (root / "last.pt").write_text("not tracked")
    state = capture_source(root)
    made = build(
        project(root, state=state, outputs=frozenset({"last.pt"})), run, tmp_path / "workspace"
    ).root
    assert sorted(path.name for path in made.iterdir()) == [".git", "notes.txt", "train.py"]


def test_environments_and_repositories_are_left_out(
    root: Path, run: RunDirectory, tmp_path: Path
) -> None:
    for name in (
        ".git/config",
        ".manifest/store.db",
        "env/pyvenv.cfg",
        "env/bin/python",
        "keep.txt",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    made = build(project(root), run, tmp_path / "workspace").root
    assert [path.name for path in made.iterdir()] == ["keep.txt"]


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../outside.py",
        "a/../../outside.py",
        ".git/hooks/post-checkout",
        "a/.git/x",
        "a\0b",
    ],
)
def test_a_recorded_path_that_leaves_the_workspace_is_refused(name: str) -> None:
    with pytest.raises(NotReplayable, match="leaves the workspace"):
        confined(name)


def test_source_is_never_written_through_a_link(
    root: Path, run: RunDirectory, tmp_path: Path
) -> None:
    # A hostile run: "out" is a link of the user's, and a source claims to lie behind it.
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "out").symlink_to(outside)
    sources = {"out/evil.py": run.put_blob(b"evil")}
    made = build(project(root, sources=sources), run, tmp_path / "workspace").root
    assert (made / "out" / "evil.py").read_text() == "evil"
    assert list(outside.iterdir()) == []


def test_a_missing_blob_is_said(root: Path, run: RunDirectory, tmp_path: Path) -> None:
    sources = {"train.py": Digest("sha256:" + "0" * 64)}
    with pytest.raises(NotReplayable, match=r"does not hold the recorded train\.py"):
        build(project(root, sources=sources), run, tmp_path / "workspace")
