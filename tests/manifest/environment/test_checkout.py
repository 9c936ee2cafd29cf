"""Captured source that cannot be trusted, or is not whole, is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from manifest.environment.checkout import restore_source
from manifest.environment.source import UntrackedFile, capture_source
from manifest.errors import NotReplayable

Git = Callable[..., bytes]
Make = Callable[[Path], Path]


def unstaged(root: Path) -> None:
    (root / "train.py").write_text("a = 1\nb = 20\nc = 3\n")


def test_a_commit_that_is_not_there_is_asked_for(
    repository: Path, tmp_path: Path, git: Git, make_repository: Make
) -> None:
    state = capture_source(repository)
    other = make_repository(tmp_path / "other")
    git(other, "commit", "--quiet", "--amend", "-m", "another")
    (repository / "train.py").write_text("new")
    git(repository, "commit", "--quiet", "-am", "second")
    state = capture_source(repository)
    with pytest.raises(NotReplayable, match="fetch it there first"):
        restore_source(state, tmp_path / "copy", other)


@pytest.mark.parametrize("commit", ["--upload-pack=x", "HEAD", "main", "", None])
def test_only_the_name_of_a_commit_is_checked_out(repository: Path, commit: str | None) -> None:
    state = replace(capture_source(repository), commit=commit)
    with pytest.raises(NotReplayable):
        restore_source(state, repository.parent / "copy", repository)


def test_a_folder_with_files_in_it_is_not_written_to(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "precious").touch()
    with pytest.raises(NotReplayable, match="not empty"):
        restore_source(capture_source(repository), tmp_path / "copy", repository)


@pytest.mark.parametrize(
    "path",
    [
        b"../evil",
        b"/tmp/evil",
        b"a/../../evil",
        b".git/hooks/post-checkout",
        b".GIT/config",
        b"a/.git/config",
        b".git./config",
        b"",
        b"a//b",
        b"a\0b",
        b"out/evil",
        b"train.py",
    ],
)
def test_nothing_is_written_outside_the_folder(repository: Path, path: bytes) -> None:
    outside = repository.parent / "outside"
    outside.mkdir()
    files = (
        UntrackedFile(b"out", "120000", os.fsencode(outside)),
        UntrackedFile(path, "100755", b"evil"),
    )
    state = replace(capture_source(repository), untracked=files)
    with pytest.raises(NotReplayable):
        restore_source(state, repository.parent / "copy", repository)
    assert list(outside.iterdir()) == []
    assert not (repository.parent / "evil").exists()


@pytest.mark.parametrize("path", ["../evil", "/tmp/evil", ".git/config", "out/evil"])
def test_a_patch_cannot_leave_the_folder(repository: Path, path: str) -> None:
    outside = repository.parent / "outside"
    outside.mkdir()
    patch = (
        "diff --git a/out b/out\nnew file mode 120000\n--- /dev/null\n+++ b/out\n"
        f"@@ -0,0 +1 @@\n+{outside}\n\\ No newline at end of file\n"
        f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n"
        "@@ -0,0 +1 @@\n+evil\n"
    )
    state = replace(capture_source(repository), patch=patch.encode())
    with pytest.raises(NotReplayable):
        restore_source(state, repository.parent / "copy", repository)
    assert list(outside.iterdir()) == []
    assert not (repository.parent / "evil").exists()


def test_where_a_patch_does_not_fit_nothing_is_laid_out(repository: Path) -> None:
    unstaged(repository)
    state = capture_source(repository)
    broken = replace(state, patch=state.patch.replace(b"-b = 2", b"-b = 3"))
    with pytest.raises(NotReplayable):
        restore_source(broken, repository.parent / "copy", repository)
    assert os.listdir(repository.parent / "copy") == [".git"]


def test_source_that_came_out_otherwise_is_refused(repository: Path) -> None:
    unstaged(repository)
    state = capture_source(repository)
    altered = replace(state, patch=state.patch.replace(b"+b = 20", b"+b = 21"))
    with pytest.raises(NotReplayable, match="expected the tree"):
        restore_source(altered, repository.parent / "copy", repository)


def test_what_could_not_be_captured_cannot_be_restored(repository: Path, tmp_path: Path) -> None:
    state = capture_source(tmp_path / "scratch")
    with pytest.raises(NotReplayable, match="not a git repository"):
        restore_source(state, tmp_path / "copy", repository)
