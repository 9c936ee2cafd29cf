"""What is shown of a change within a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from manifest.canonical import Digest, digest_bytes
from manifest.diffing import diff_sections
from manifest.models import Difference

Sections = dict[str, dict[str, Any]]


def only(before: Sections, after: Sections, **options: Any) -> Difference:
    (difference,) = diff_sections(before, after, **options)
    return difference


def stored(*texts: bytes) -> tuple[list[Digest], Callable[[Digest], bytes | None]]:
    digests = [digest_bytes(text) for text in texts]
    return digests, dict(zip(digests, texts, strict=True)).get


@pytest.mark.parametrize(
    ("before", "after", "detail"),
    [
        ("t.py --lr 0.1 --n 2", "t.py --lr 0.2 --n 2", "--lr 0.1 → 0.2"),
        ("t.py --lr=0.1", "t.py --lr=0.2", "--lr=0.1 → 0.2"),
        ("t.py opt.lr=0.1", "t.py opt.lr=0.2", "opt.lr=0.1 → 0.2"),
        ("a.py", "b.py", "a.py → b.py"),
        ("t.py", "t.py --fast", "added --fast"),
        ("t.py --fast", "t.py", "removed --fast"),
        (
            "t.py --lr 0.1 --fast --seed=1",
            "t.py --lr 0.2 --seed=2 --verbose -n",
            "--lr 0.1 → 0.2; --seed=1 → 2; removed --fast; added --verbose; added -n",
        ),
    ],
)
def test_a_changed_argument_is_shown_with_its_option(before: str, after: str, detail: str) -> None:
    found = only({"command": {"argv": before.split()}}, {"command": {"argv": after.split()}})
    assert (found.detail, found.before) == (detail, before.split())


def test_elements_that_only_differ_by_type_are_told_apart() -> None:
    assert only({"config": {"k": [1, 2]}}, {"config": {"k": ["1", 2]}}).detail == '1 → "1"'


def test_a_changed_source_file_is_shown_as_a_unified_diff() -> None:
    lines = [f"line {number}" for number in range(1, 41)]
    changed = [*lines[:19], "changed", *lines[20:]]
    (before, after), blobs = stored("\n".join(lines).encode(), "\n".join(changed).encode())
    found = only(
        {"code": {"files": {"a/train.txt": before}}},
        {"code": {"files": {"a/train.txt": after}}},
        blobs=blobs,
    )
    assert found.detail.splitlines() == [
        "--- before/a/train.txt",
        "+++ after/a/train.txt",
        "@@ -17,7 +17,7 @@",
        " line 17",
        " line 18",
        " line 19",
        "-line 20",
        "+changed",
        " line 21",
        " line 22",
        " line 23",
    ]


def test_a_long_diff_is_cut_and_says_by_how_much() -> None:
    texts = ["".join(f"{word} {number}\n" for number in range(500)).encode() for word in ("a", "b")]
    (before, after), blobs = stored(*texts)
    found = only(
        {"code": {"files": {"x.py": before}}}, {"code": {"files": {"x.py": after}}}, blobs=blobs
    )
    lines = found.detail.splitlines()
    assert (len(lines), lines[-1]) == (401, "… 603 more lines")


def test_files_that_would_take_long_to_compare_are_only_measured() -> None:
    text = b"".join(b"l%d\n" % (number % 2_000) for number in range(20_000))
    (before, after), blobs = stored(
        b"first\n" + text + b"last\n", b"f\n" + b"\n".join(reversed(text.split(b"\n"))) + b"\nl\n"
    )
    found = only(
        {"code": {"files": {"x.txt": before}}}, {"code": {"files": {"x.txt": after}}}, blobs=blobs
    )
    assert found.detail == "20002 and 20003 lines"


def test_binary_files_are_only_measured() -> None:
    (before, after), blobs = stored(b"\xff\xfe", b"\xff")
    found = only(
        {"inputs": {"w.pt": {"size": 2, "blob": before}}},
        {"inputs": {"w.pt": {"size": 1, "blob": after}}},
        blobs=blobs,
    )
    assert found.detail == "binary, 2 and 1 bytes"


def test_a_patch_is_shown_only_where_no_file_explains_it() -> None:
    (before, after, other), blobs = stored(b"+a\n", b"+b\n", b"c\n")
    patches = {"git.patch": before}, {"git.patch": after}
    assert "+b" in only({"code": patches[0]}, {"code": patches[1]}, blobs=blobs).detail
    found = diff_sections(
        {"code": {**patches[0], "files": {"x.txt": before}}},
        {"code": {**patches[1], "files": {"x.txt": other}}},
        blobs=blobs,
    )
    assert {each.key: bool(each.detail) for each in found} == {
        "files.x.txt": True,
        "git.patch": False,
    }


def test_a_file_whose_text_is_lacking_differs_without_detail() -> None:
    found = only(
        {"code": {"files": {"x.py": "sha256:" + "0" * 64}}},
        {"code": {"files": {"x.py": "not a digest"}}},
        blobs=lambda digest: None,
    )
    assert (found.impact, found.detail) == ("certain", "")
