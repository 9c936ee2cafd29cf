"""The state of a repository is kept in a manifest, and read back as it was."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from manifest import sources
from manifest.canonical import plain
from manifest.environment.source import LINK, LeftOut, SourceState, Submodule, UntrackedFile
from manifest.errors import NotReplayable
from manifest.identity import new_run_id
from manifest.rundir import RunDirectory

STATE = SourceState(
    commit="1" * 40,
    branch="main",
    is_dirty=True,
    patch=b"diff --git a/x b/x\n",
    untracked=(
        UntrackedFile("größe".encode(), "100644", b"text"),
        UntrackedFile(b"link", LINK, b"target"),
        UntrackedFile(b"run.sh", "100755", b"#!/bin/sh\n"),
    ),
    submodules=(
        Submodule(
            b"lib",
            SourceState(
                commit="2" * 40,
                patch=b"diff --git a/y b/y\n",
                submodules=(Submodule(b"deep/er", SourceState(commit="4" * 40, tree="5" * 40)),),
                tree="6" * 40,
            ),
        ),
        Submodule(b"none", None),
    ),
    tree="3" * 40,
)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path, new_run_id())


def facts(state: SourceState, run: RunDirectory) -> dict[str, Any]:
    found = plain(sources.as_facts(state, run))
    assert isinstance(found, dict)
    return found


def test_what_is_written_is_read_back(run: RunDirectory) -> None:
    assert sources.read_back(facts(STATE, run), run) == replace(STATE, branch=None, is_dirty=False)


def test_a_file_that_is_withheld_or_too_large_is_named_and_the_tree_is_not_claimed(
    run: RunDirectory,
) -> None:
    secret = UntrackedFile(b".env", "100644", b"TOKEN=abc")
    odd = UntrackedFile(b"\xff", "100644", b"text")
    state = replace(
        STATE,
        untracked=(*STATE.untracked, secret, odd),
        left_out=(LeftOut(b"large.bin", 10**9, "too large"),),
    )
    written = facts(state, run)
    assert written["git.left_out"] == [".env", "\\xff", "large.bin"]
    assert written["git.gaps"] == ["large.bin: too large"]
    read = sources.read_back(written, run)
    assert read is not None
    assert read.tree is None
    assert read.untracked == STATE.untracked
    assert [os.fsdecode(item.path) for item in read.left_out] == [".env", "\\xff", "large.bin"]


def test_without_a_repository_there_is_nothing_to_read(run: RunDirectory) -> None:
    assert sources.read_back({"files": {}}, run) is None


def test_bytes_that_the_run_does_not_hold_are_said(run: RunDirectory) -> None:
    written = facts(STATE, run) | {"git.patch": "sha256:" + "0" * 64}
    with pytest.raises(NotReplayable, match="does not hold"):
        sources.read_back(written, run)
