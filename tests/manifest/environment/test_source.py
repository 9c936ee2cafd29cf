"""Captured source, laid out again, is the same to the byte; real repositories throughout."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from manifest.environment.checkout import restore_source
from manifest.environment.source import (
    LeftOut,
    SourceState,
    capture_source,
)
from manifest.errors import NotReplayable

Make = Callable[[Path], Path]

BINARY = bytes(range(256)) * 40

pytestmark = pytest.mark.usefixtures("git_of_nobody")


def git(folder: Path, *arguments: str) -> bytes:
    done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, check=True)
    return done.stdout.strip()


def contents(folder: Path) -> dict[bytes, tuple[str, bytes]]:
    """Every file below a folder, with what git would notice about it."""
    found: dict[bytes, tuple[str, bytes]] = {}
    for where, folders, names in os.walk(os.fsencode(folder)):
        folders[:] = [name for name in folders if name not in (b".git", b"ignored")]
        links = [name for name in folders if os.path.islink(os.path.join(where, name))]
        for name in [*names, *links]:
            path = os.path.join(where, name)
            if name == b".git":
                continue
            key = os.path.relpath(path, os.fsencode(folder))
            if os.path.islink(path):
                found[key] = ("link", os.readlink(path))
            else:
                mode = "run" if os.stat(path).st_mode & stat.S_IXUSR else "file"
                found[key] = (mode, Path(os.fsdecode(path)).read_bytes())
    return found


def restored(state: SourceState, repository: Path) -> Path:
    copy = repository.parent / "copy"
    assert restore_source(state, copy, repository) == state.tree
    return copy


def assert_round_trip(repository: Path) -> SourceState:
    objects = git(repository, "count-objects", "-v")
    status = git(repository, "status", "--porcelain=v2", "-z")
    state = capture_source(repository)
    assert state.problem is None
    assert git(repository, "count-objects", "-v") == objects
    assert git(repository, "status", "--porcelain=v2", "-z") == status
    copy = restored(state, repository)
    assert contents(copy) == contents(repository)
    assert git(copy, "rev-parse", "HEAD") == git(repository, "rev-parse", "HEAD")
    assert os.listdir(repository.parent / "scratch") == []
    return state


def test_a_clean_tree_is_its_commit(repository: Path) -> None:
    state = assert_round_trip(repository)
    assert state.commit == git(repository, "rev-parse", "HEAD").decode()
    assert state.tree == git(repository, "rev-parse", "HEAD^{tree}").decode()
    assert (state.branch, state.is_dirty, state.patch, state.untracked) == ("main", False, b"", ())
    assert state.root == repository
    assert state.gaps == ()


def staged(root: Path) -> None:
    (root / "train.py").write_text("a = 1\nb = 20\nc = 3\n")
    git(root, "add", "train.py")


def unstaged(root: Path) -> None:
    (root / "train.py").write_text("a = 1\nb = 20\nc = 3\n")


def staged_then_changed_again(root: Path) -> None:
    staged(root)
    (root / "train.py").write_text("a = 100\n")


def staged_then_changed_back(root: Path) -> None:
    staged(root)
    (root / "train.py").write_text("a = 1\nb = 2\nc = 3\n")


def changed_with_the_same_size_at_once(root: Path) -> None:
    (root / "train.py").write_text("a = 1\nb = 7\nc = 3\n")
    git(root, "add", "train.py")
    (root / "train.py").write_text("a = 1\nb = 8\nc = 3\n")


def deleted(root: Path) -> None:
    (root / "train.py").unlink()
    git(root, "rm", "--quiet", "data.bin")


def renamed(root: Path) -> None:
    git(root, "mv", "package/model.py", "network.py")
    (root / "network.py").write_text("class Model: ...\n" * 20 + "x = 1\n")


def binary(root: Path) -> None:
    (root / "data.bin").write_bytes(BINARY[::-1])
    (root / "new.bin").write_bytes(BINARY)
    git(root, "add", "new.bin")


def mode_changed(root: Path) -> None:
    (root / "run.sh").chmod(0o755)


def links_changed(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").symlink_to("data.bin")
    (root / "data").symlink_to("/nowhere/at/all")
    (root / "folder").symlink_to("package")


def a_file_became_a_link_and_a_link_a_file(root: Path) -> None:
    (root / "train.py").unlink()
    (root / "train.py").symlink_to("run.sh")
    (root / "link").unlink()
    (root / "link").write_text("a file\n")


def a_file_became_a_folder_and_a_folder_a_file(root: Path) -> None:
    (root / "run.sh").unlink()
    (root / "run.sh").mkdir()
    (root / "run.sh" / "inner.py").write_text("x = 1\n")
    (root / "package" / "model.py").unlink()
    (root / "package").rmdir()
    (root / "package").write_text("no folder\n")


def untracked(root: Path) -> None:
    (root / "notes.txt").write_bytes(b"no newline at the end")
    (root / "tool").write_text("#!/bin/sh\n")
    (root / "tool").chmod(0o755)
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "er" / "empty.py").touch()
    (root / "crlf.txt").write_bytes(b"a\r\nb\r\n")


def without_a_newline_at_the_end(root: Path) -> None:
    (root / "train.py").write_bytes(b"a = 1\nb = 2\nc = 3")
    (root / "run.sh").write_bytes(b"")


def with_names_of_any_bytes(root: Path) -> None:
    for name in (b"caf\xe9.py", "café.py".encode(), b'quo"te\n.py', b" space ", b"*.py", b"-f"):
        path = os.path.join(os.fsencode(root), name)
        for kind in (b"", b"tracked"):
            with open(path + kind, "wb") as file:
                file.write(b"\xff\x00" + name)
    names = [name for name in os.listdir(os.fsencode(root)) if name.endswith(b"tracked")]
    literally = {**os.environ, "GIT_LITERAL_PATHSPECS": "1"}
    subprocess.run(["git", "-C", root, "add", "--", *names], env=literally, check=True)
    for name in names:
        with open(os.path.join(os.fsencode(root), name), "ab") as file:
            file.write(b"more")


def intended_to_add(root: Path) -> None:
    (root / "soon.py").write_text("x = 1\n")
    git(root, "add", "-N", "soon.py")


def removed_from_git_only(root: Path) -> None:
    git(root, "rm", "--cached", "--quiet", "train.py")


def hidden_from_git(root: Path) -> None:
    git(root, "update-index", "--assume-unchanged", "train.py")
    git(root, "update-index", "--skip-worktree", "run.sh")
    (root / "train.py").write_text("a = 5\n")
    (root / "run.sh").write_text("echo hidden\n")


def in_the_middle_of_a_merge(root: Path) -> None:
    git(root, "checkout", "--quiet", "-b", "other")
    (root / "train.py").write_text("a = 2\n")
    git(root, "commit", "--quiet", "-am", "other")
    git(root, "checkout", "--quiet", "main")
    (root / "train.py").write_text("a = 3\n")
    git(root, "commit", "--quiet", "-am", "main")
    subprocess.run(["git", "-C", root, "merge", "other"], capture_output=True, check=False)


@pytest.mark.parametrize(
    "change",
    [
        staged,
        unstaged,
        staged_then_changed_again,
        changed_with_the_same_size_at_once,
        deleted,
        renamed,
        binary,
        mode_changed,
        links_changed,
        a_file_became_a_link_and_a_link_a_file,
        a_file_became_a_folder_and_a_folder_a_file,
        untracked,
        without_a_newline_at_the_end,
        with_names_of_any_bytes,
        intended_to_add,
        removed_from_git_only,
        hidden_from_git,
        in_the_middle_of_a_merge,
    ],
    ids=lambda change: change.__name__,
)
def test_a_changed_tree_comes_back_to_the_byte(repository: Path, change: object) -> None:
    assert callable(change)
    change(repository)
    state = assert_round_trip(repository)
    assert state.is_dirty
    assert state.gaps == ()


def test_a_change_that_was_taken_back_is_no_change(repository: Path) -> None:
    staged_then_changed_back(repository)
    assert assert_round_trip(repository).patch == b""


@pytest.mark.parametrize(
    "setting",
    [
        "diff.noprefix=true",
        "diff.mnemonicPrefix=true",
        "diff.context=0",
        "diff.renames=copies",
        "color.ui=always",
        "diff.external=false",
        "diff.submodule=log",
        "core.autocrlf=input",
        "diff.relative=true",
        "apply.whitespace=error",
        "core.fsmonitor=false",
        "diff.orderFile=x",
        "core.quotePath=true",
        "core.splitIndex=true",
        "diff.suppressBlankEmpty=true",
        "status.showUntrackedFiles=no",
        "core.safecrlf=true",
        "core.untrackedCache=true",
    ],
)
def test_what_the_user_configured_does_not_spoil_the_patch(repository: Path, setting: str) -> None:
    git(repository, "config", *setting.split("="))
    for change in (unstaged, renamed, binary, mode_changed):
        change(repository)
    (repository / "blank.py").write_text("a\n\n\n   \nb \n")
    state = capture_source(repository)
    assert state.problem is None
    assert state.patch.startswith(b"diff --git a/")
    assert contents(restored(state, repository)) == contents(repository)


def test_hooks_and_monitors_of_the_repository_do_not_run(repository: Path) -> None:
    witness = repository.parent / "witness"
    hook = repository.parent / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {witness}\n")
    hook.chmod(0o755)
    for name in ("post-checkout", "post-index-change", "pre-applypatch"):
        (repository / ".git" / "hooks").mkdir(exist_ok=True)
        (repository / ".git" / "hooks" / name).symlink_to(hook)
    git(repository, "config", "core.fsmonitor", str(hook))
    unstaged(repository)
    restored(capture_source(repository), repository)
    assert not witness.exists()


def test_a_subfolder_means_the_whole_repository(repository: Path) -> None:
    unstaged(repository)
    assert capture_source(repository / "package") == capture_source(repository)


def test_a_linked_working_tree_is_one_of_its_own(repository: Path) -> None:
    linked = repository.parent / "linked"
    git(repository, "worktree", "add", "--quiet", "-b", "side", str(linked))
    unstaged(linked)
    untracked(linked)
    state = assert_round_trip(linked)
    assert (state.root, state.branch) == (linked, "side")
    assert not capture_source(repository).is_dirty


def test_variables_of_a_hook_that_we_run_in_do_not_lead_elsewhere(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    assert capture_source(repository).problem is None


def test_a_submodule_is_laid_out_at_the_commit_it_was_at(
    repository: Path, tmp_path: Path, make_repository: Make
) -> None:
    library = make_repository(tmp_path / "library")
    allowed = ("-c", "protocol.file.allow=always")
    git(repository, *allowed, "submodule", "--quiet", "add", str(library), "library")
    git(repository, "commit", "--quiet", "-m", "with a submodule")
    within = repository / "library"
    (within / "train.py").write_text("z = 1\n")
    git(within, "commit", "--quiet", "-am", "second")
    state = assert_round_trip(repository)
    (submodule,) = state.submodules
    assert submodule.path == b"library"
    assert submodule.state is not None
    assert submodule.state.commit == git(within, "rev-parse", "HEAD").decode()
    (gap,) = state.gaps
    assert gap.startswith("library: the commit ")
    assert gap.endswith(" of a submodule, which may exist only here")
    git(within, "push", "--quiet", "origin", "HEAD:refs/heads/side")
    assert capture_source(repository).gaps == ()


def with_submodules(repository: Path, make_repository: Make) -> Path:
    """Put a library into a repository, and a library into that; the innermost is given."""
    allowed = ("-c", "protocol.file.allow=always")
    outer, inner = (make_repository(repository.parent / name) for name in ("outer", "inner"))
    for holder, held in ((outer, inner), (repository, outer)):
        git(holder, *allowed, "submodule", "--quiet", "add", str(held), "library")
        git(holder, "commit", "--quiet", "-m", "with a submodule")
    git(repository, *allowed, "submodule", "--quiet", "update", "--init", "--recursive")
    return repository / "library" / "library"


def test_submodules_are_captured_with_what_is_uncommitted_in_them(
    repository: Path, make_repository: Make
) -> None:
    inner = with_submodules(repository, make_repository)
    clean = assert_round_trip(repository)
    assert (clean.is_dirty, clean.gaps) == (False, ())
    shutil.rmtree(repository.parent / "copy")
    for change in (unstaged, staged, binary, untracked):
        change(inner)
    git(repository, "config", "submodule.library.ignore", "all")
    git(inner, "config", "status.showUntrackedFiles", "no")
    state = assert_round_trip(repository)
    assert (state.is_dirty, state.gaps, state.patch) == (True, (), b"")
    assert state.tree == clean.tree
    copy = repository.parent / "copy" / "library" / "library"
    assert contents(copy) == contents(inner)


def test_what_is_left_out_of_a_submodule_is_named_and_shares_the_limits(
    repository: Path, make_repository: Make
) -> None:
    inner = with_submodules(repository, make_repository)
    (repository / "a.log").write_bytes(bytes(60_000))
    (inner / "b.log").write_bytes(bytes(50_000))
    (gap,) = capture_source(repository, most_bytes=100_000).gaps
    assert gap == "library: library: b.log: beyond what is kept of all files together"


def test_a_submodule_without_a_commit_is_named(repository: Path, make_repository: Make) -> None:
    inner = with_submodules(repository, make_repository)
    git(inner, "checkout", "--quiet", "--orphan", "new")
    state = capture_source(repository)
    assert state.gaps == ("library: library: the branch new has no commit yet",)
    with pytest.raises(NotReplayable, match="no commit yet"):
        restored(state, repository)


def test_a_shallow_submodule_was_fetched(repository: Path, make_repository: Make) -> None:
    library = make_repository(repository.parent / "outer")
    git(library, "config", "uploadpack.allowAnySHA1InWant", "true")
    old = git(library, "rev-parse", "HEAD").decode()
    git(library, "commit", "--quiet", "--allow-empty", "-m", "second")
    url, allowed = f"file://{library}", ("-c", "protocol.file.allow=always")
    git(repository, *allowed, "submodule", "--quiet", "add", "--depth=1", url, "library")
    within = repository / "library"
    git(within, *allowed, "fetch", "--quiet", "--depth=1", "origin", old)
    git(within, "checkout", "--quiet", "--detach", old)
    assert capture_source(repository).gaps == ()


def test_addresses_are_kept_without_credentials(repository: Path) -> None:
    git(repository, "remote", "add", "mirror", "https://ada:hunter2@mirror.example/r.git")
    git(repository, "remote", "add", "origin", "https://ghp_secret@host.example/r.git")
    state = capture_source(repository)
    assert state.remote == "https://host.example/r.git"
    assert state.remotes == {
        "mirror": "https://mirror.example/r.git",
        "origin": "https://host.example/r.git",
    }


def test_a_huge_file_is_left_out_and_named(repository: Path) -> None:
    unstaged(repository)
    (repository / "checkpoint.pt").write_bytes(bytes(300_000))
    (repository / "data.bin").write_bytes(bytes(200_000))
    (repository / "small.py").write_text("x = 1\n")
    state = capture_source(repository, most_bytes_a_file=100_000)
    assert {(item.path, item.size) for item in state.left_out} == {
        (b"checkpoint.pt", 300_000),
        (b"data.bin", 200_000),
    }
    assert len(state.gaps) == 2
    copy = restored(state, repository)
    assert (copy / "data.bin").read_bytes() == BINARY
    assert (copy / "train.py").read_text() == (repository / "train.py").read_text()
    assert (copy / "small.py").exists()
    assert not (copy / "checkpoint.pt").exists()


def test_of_many_files_the_small_ones_are_kept(repository: Path) -> None:
    (repository / "a.log").write_bytes(bytes(60_000))
    (repository / "b.log").write_bytes(bytes(50_000))
    (repository / "c.py").write_text("x = 1\n")
    state = capture_source(repository, most_bytes=100_000)
    assert [file.path for file in state.untracked] == [b"b.log", b"c.py"]
    assert [item.path for item in state.left_out] == [b"a.log"]


def test_pipes_and_ignored_files_are_not_looked_at_and_nested_repositories_are_named(
    repository: Path, make_repository: Make
) -> None:
    os.mkfifo(repository / "pipe")  # git does not list it
    (repository / "ignored").mkdir()
    (repository / "ignored" / "x").write_text("x")
    (repository / "package" / "__pycache__").mkdir()
    (repository / "package" / "__pycache__" / "model.pyc").write_text("x")
    make_repository(repository / "nested")
    state = capture_source(repository)
    assert state.untracked == ()
    assert state.left_out == (LeftOut(b"nested/", 0, "a repository of its own"),)


def test_a_shallow_clone_and_a_detached_commit_are_enough(repository: Path) -> None:
    git(repository, "commit", "--quiet", "--allow-empty", "-m", "second")
    clone = repository.parent / "clone"
    source = f"file://{repository}"
    git(repository, "clone", "--quiet", "--depth=1", source, str(clone))
    git(clone, "checkout", "--quiet", "--detach")
    unstaged(clone)
    state = assert_round_trip(clone)
    assert state.branch is None
    assert git(repository.parent / "copy", "log", "--oneline").count(b"\n") == 0


def test_what_is_no_repository_says_so(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--bare", "bare")
    for folder, word in (
        (tmp_path / "scratch", "not a git repository"),
        (tmp_path / "missing", "not a folder"),
        (tmp_path / "bare", "bare repository"),
    ):
        state = capture_source(folder)
        assert word in str(state.problem)
        assert state.gaps == (state.problem,)


def test_a_repository_without_a_commit_says_so(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--initial-branch=main", "empty")
    state = capture_source(tmp_path / "empty")
    assert state.problem == "the branch main has no commit yet"
    assert state.branch == "main"


def test_a_damaged_repository_says_so(repository: Path) -> None:
    unstaged(repository)
    (repository / ".git" / "index").write_bytes(b"DIRC damaged")
    state = capture_source(repository)
    assert "index" in str(state.problem)
    assert state.commit is not None
    for file in (repository / ".git" / "objects").glob("??/*"):
        file.unlink()
    assert "HEAD is damaged" in str(capture_source(repository).problem)


def test_without_git_it_says_so(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository))
    assert capture_source(repository).problem == "git is not installed"


def test_a_git_that_hangs_is_ended(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = repository.parent / "bin"
    slow.mkdir()
    (slow / "git").write_text("#!/bin/sh\nexec sleep 60\n")
    (slow / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow}:{os.environ['PATH']}")
    state = capture_source(repository, timeout_seconds=0.1)
    assert "took over 0.1 s" in str(state.problem)
