"""Source, inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from manifest.canonical import ABSENT, digest_bytes
from manifest.diffing import diff_sections

Impacts = Callable[..., dict[str, str]]
Sections = dict[str, dict[str, Any]]


def test_comments_and_layout_are_no_other_program(impacts: Impacts) -> None:
    texts = [b"x = 1\n", b"# new\nx  =  1  # one\n\n", b"x = 2\n", b"x = (\n", b"x = 1\n\xff"]
    first, *others = map(digest_bytes, texts)
    blobs = dict(zip([first, *others], texts, strict=True)).get

    def files(digest: str) -> Sections:
        return {"code": {"files": {"train.py": digest}}}

    found = [impacts(files(first), files(other), blobs=blobs) for other in others]
    assert [each["files.train.py"] for each in found] == [
        "informational",
        "certain",
        "certain",
        "certain",
    ]


def test_another_indentation_is_another_program(impacts: Impacts) -> None:
    texts = [b"if a:\n  b()\nc()\n", b"if a:\n  b()\n  c()\n", b"if a:\n    b()\nc()\n"]
    nested, other, wider = map(digest_bytes, texts)
    blobs = dict(zip([nested, other, wider], texts, strict=True)).get
    files = [{"code": {"files": {"t.py": digest}}} for digest in (nested, other, wider)]
    assert impacts(files[0], files[1], blobs=blobs) == {"files.t.py": "certain"}
    assert impacts(files[0], files[2], blobs=blobs) == {"files.t.py": "informational"}


def test_a_renamed_file_is_the_same_source(impacts: Impacts) -> None:
    before = {"code": {"files": {"a.py": "sha256:1"}}}
    after = {"code": {"files": {"b.py": "sha256:1"}}}
    assert set(impacts(before, after).values()) == {"informational"}


def test_a_commit_matters_only_where_the_executed_files_are_not_known(impacts: Impacts) -> None:
    before: Sections = {"code": {"git.commit": "1", "files": {"t.py": "sha256:1"}}}
    after: Sections = {"code": {"git.commit": "2", "files": {"t.py": "sha256:1"}}}
    assert impacts(before, after) == {"git.commit": "informational"}
    after["code"]["files"] = {"t.py": "sha256:2"}
    assert impacts(before, after) == {"files.t.py": "certain", "git.commit": "informational"}
    assert impacts({"code": {"git.commit": "1"}}, {"code": {"git.commit": "2"}}) == {
        "git.commit": "possible"
    }


def facts(**known: Any) -> Sections:
    return {"inputs": {"d.csv": known}}


def seen(size: int, mtime_us: int, digest: str | None = None) -> dict[str, Any]:
    known = {"size": size, "mtime_us": mtime_us}
    return known if digest is None else {**known, "digest": digest}


@pytest.mark.parametrize(
    ("before", "after", "impact"),
    [
        (seen(1, 1, "x:1"), seen(1, 2, "x:1"), None),
        (seen(1, 1, "x:1"), seen(1, 1, "x:2"), "certain"),
        (seen(1, 1), seen(2, 1), "certain"),
        (seen(1, 1), seen(1, 1, "x:1"), None),
        (seen(1, 1), seen(1, 2), "possible"),
        (seen(1, 1, "x:1"), seen(1, 2, "y:1"), "possible"),
        (seen(1, 1), {"missing": "No such file"}, "certain"),
        ({"missing": "Permission denied"}, {"missing": "No such file"}, None),
    ],
)
def test_an_input_is_its_content(
    impacts: Impacts, before: dict[str, Any], after: dict[str, Any], impact: str | None
) -> None:
    assert impacts(facts(**before), facts(**after)) == ({} if impact is None else {"d.csv": impact})


def test_the_same_content_under_another_path_changes_nothing(impacts: Impacts) -> None:
    before = {"inputs": {"/data/a.csv": {"size": 1, "digest": "x:1"}}}
    after = {"inputs": {"/mnt/a.csv": {"size": 1, "digest": "x:1"}}}
    assert set(impacts(before, after).values()) == {"informational"}


def test_a_file_that_a_run_also_wrote_is_perhaps_a_result(impacts: Impacts) -> None:
    outputs = {"outputs": {"d.csv": {"size": 1, "mtime_us": 1}}}
    before, after = facts(size=1, digest="x:1"), facts(size=1, digest="x:2")
    assert impacts(before | outputs, after | outputs) == {"d.csv": "possible"}


def test_what_a_run_wrote_is_a_result(impacts: Impacts) -> None:
    before: Sections = {"outputs": {"w.pt": {"size": 1, "mtime_us": 1}}}
    after: Sections = {"outputs": {"w.pt": {"size": 1, "mtime_us": 2}}}
    assert impacts(before, after) == {}
    after["outputs"]["w.pt"]["size"] = 2
    assert impacts(before, after) == {"w.pt": "informational"}


def committed(files: dict[str, str] | None = None, **git: Any) -> Sections:
    known = {f"git.{name}": value for name, value in git.items()}
    return {"code": known if files is None else {**known, "files": files}}


def test_a_revision_says_nothing_where_the_executed_files_are_known(impacts: Impacts) -> None:
    before = committed({"t.py": "sha256:1"}, commit="1", tree="3", dirty=False)
    after = committed(
        {"t.py": "sha256:2"},
        commit="2",
        tree="4",
        dirty=True,
        patch="sha256:5",
        untracked={"notes.txt": "sha256:6"},
    )
    assert impacts(before, after) == {
        "files.t.py": "certain",
        "git.commit": "informational",
        "git.tree": "informational",
        "git.dirty": "informational",
        "git.patch": "informational",
        "git.untracked.notes.txt": "informational",
    }


def test_changes_that_were_only_committed_are_the_same_source(impacts: Impacts) -> None:
    before = committed(commit="1", tree="3", dirty=True, patch="sha256:5")
    after = committed(commit="2", tree="3", dirty=False)
    assert set(impacts(before, after).values()) == {"informational"}


def test_a_tree_repeats_the_commit_and_the_changes_it_is_made_of(impacts: Impacts) -> None:
    before = committed(commit="1", tree="3")
    assert impacts(before, committed(commit="2", tree="4")) == {
        "git.commit": "possible",
        "git.tree": "informational",
    }
    assert impacts(before, committed(commit="1", tree="4")) == {"git.tree": "possible"}


def test_a_run_without_uncommitted_changes_has_none_rather_than_unknown_ones() -> None:
    before, after = committed(tree="3"), committed(tree="4", patch="sha256:5")
    found = {each.key: each for each in diff_sections(before, after)}
    assert (found["git.patch"].before, found["git.patch"].was_captured_before) == (ABSENT, True)


def ran_and_read(executed: str | None, read: str | None) -> Sections:
    return {
        "command": {"root": "/p"},
        "code": {"files": {"t.py": "sha256:0"} | ({"c.toml": executed} if executed else {})},
        "inputs": {"/p/c.toml": {"size": 1, "blob": read}} if read else {},
    }


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (("sha256:1", "sha256:1"), ("sha256:2", "sha256:2"), {"files.c.toml": "certain"}),
        (("sha256:1", "sha256:1"), ("sha256:2", None), {"files.c.toml": "certain"}),
        (("sha256:1", "sha256:1"), (None, None), {"files.c.toml": "possible"}),
        (("sha256:1", "sha256:1"), (None, "sha256:2"), {"c.toml": "certain"}),
        (("sha256:1", "sha256:1"), (None, "sha256:1"), {"files.c.toml": "informational"}),
        # Not what was executed: the program wrote it again before it read it.
        (("sha256:1", "sha256:1"), ("sha256:1", "sha256:2"), {"c.toml": "certain"}),
    ],
)
def test_a_file_that_was_executed_and_read_is_one_difference(
    impacts: Impacts,
    before: tuple[str | None, str | None],
    after: tuple[str | None, str | None],
    expected: dict[str, str],
) -> None:
    assert impacts(ran_and_read(*before), ran_and_read(*after)) == expected


BEFORE = b"width = 8\n\n\ndef act(x):\n    return x\n"
AFTER = BEFORE.replace(b"8", b"16")


def test_source_that_was_renamed_and_edited_is_one_difference(impacts: Impacts) -> None:
    def run(**files: bytes) -> Sections:
        return {"code": {"files": {name: digest_bytes(text) for name, text in files.items()}}}

    texts = {digest_bytes(text): text for text in (BEFORE, AFTER, b"import os\n")}
    pair = run(model=BEFORE, kept=b"import os\n"), run(arch=AFTER, kept=b"import os\n")
    assert impacts(*pair, blobs=texts.get) == {
        "files.arch": "certain",
        "files.model": "informational",
    }
    found = {each.key: each for each in diff_sections(*pair, blobs=texts.get)}
    assert found["files.arch"].reason == "in the other run a text much like it was model"
    assert found["files.arch"].detail.startswith("--- before/model\n+++ after/arch\n")
    assert "-width = 8\n+width = 16" in found["files.arch"].detail
    back = {each.key: each for each in diff_sections(*pair[::-1], blobs=texts.get)}
    assert back["files.arch"].detail.startswith("--- before/arch\n+++ after/model\n")


def test_source_of_one_run_that_is_like_nothing_is_its_own(impacts: Impacts) -> None:
    def run(**files: bytes) -> Sections:
        return {"code": {"files": {name: digest_bytes(text) for name, text in files.items()}}}

    texts = {digest_bytes(text): text for text in (BEFORE, b"import os\n")}
    found = impacts(run(model=BEFORE), run(arch=b"import os\n"), blobs=texts.get)
    assert found == {"files.arch": "possible", "files.model": "possible"}
