"""Git repositories, with nobody's configuration."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

BINARY = bytes(range(256)) * 40


@pytest.fixture
def git_of_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git without anyone's configuration, and a scratch folder to look into afterwards."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "config").write_text("[user]\nname = Ada\nemail = ada@example.org\n")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def git(git_of_nobody: None) -> Callable[..., bytes]:
    """Run git in a folder."""

    def run(folder: Path, *arguments: str) -> bytes:
        command: list[str | Path] = ["git", "-C", folder, *arguments]
        return subprocess.run(command, capture_output=True, check=True).stdout.strip()

    return run


@pytest.fixture
def make_repository(git: Callable[..., bytes]) -> Callable[[Path], Path]:
    """Make a repository with one commit."""

    def make(folder: Path) -> Path:
        folder.mkdir()
        git(folder, "init", "--quiet", "--initial-branch=main")
        (folder / "train.py").write_text("a = 1\nb = 2\nc = 3\n")
        (folder / "data.bin").write_bytes(BINARY)
        (folder / "package").mkdir()
        (folder / "package" / "model.py").write_text("class Model: ...\n" * 20)
        (folder / "run.sh").write_text("echo\n")
        (folder / "link").symlink_to("train.py")
        (folder / ".gitignore").write_text("ignored/\n")
        git(folder, "add", "-A")
        git(folder, "commit", "--quiet", "-m", "first")
        return folder

    return make


@pytest.fixture
def repository(tmp_path: Path, make_repository: Callable[[Path], Path]) -> Path:
    """One that is there."""
    return make_repository(tmp_path / "repository")
