"""What a program is given is read without taking from it, and only as much as can be kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from manifest.environment import given

CAPTURE = (
    "import json; from manifest.environment.given import capture_given as c;"
    "kept = []; found = c(lambda data: kept.append(data) or 'sha256:x'); rest = open(0).read();"
    "print(json.dumps([found, [k.decode() for k in kept], rest]))"
)


def captured(stdin: Any) -> tuple[dict[str, Any], list[str], str]:
    done = subprocess.run(
        [sys.executable, "-c", CAPTURE], stdin=stdin, capture_output=True, text=True, check=True
    )
    found, kept, rest = json.loads(done.stdout)
    return found, kept, rest


def test_a_small_file_is_kept_and_still_there_to_read(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("one two")
    with open(tmp_path / "words", "rb") as file:
        os.lseek(file.fileno(), 4, os.SEEK_SET)
        found, kept, rest = captured(file)
    assert found[given.STDIN]["path"] == str(tmp_path / "words")
    assert (found[given.STDIN]["kind"], found[given.STDIN]["offset"]) == ("file", 4)
    assert (kept, rest) == (["one two"], "two")


def test_a_large_file_and_one_that_may_hold_secrets_are_not_kept(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(2 << 20))
    (tmp_path / ".env").write_text("A=1")
    for name in ("large", ".env"):
        with open(tmp_path / name, "rb") as file:
            found, kept, _ = captured(file)
        assert "blob" not in found[given.STDIN]
        assert kept == []


def test_a_secret_in_the_name_of_a_file_is_not_kept(tmp_path: Path) -> None:
    name = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    (tmp_path / name).write_text("text")
    with open(tmp_path / name, "rb") as file:
        found, _, _ = captured(file)
    assert name not in json.dumps(found)


def test_a_pipe_is_told_from_nothing_at_all() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"piped")
    os.close(writing)
    found, _, rest = captured(reading)
    os.close(reading)
    assert (found[given.STDIN], rest) == ({"kind": "pipe"}, "piped")
    reading, writing = os.pipe()
    os.close(writing)
    assert captured(reading)[0][given.STDIN] == {"kind": "nothing"}
    os.close(reading)
    assert captured(subprocess.DEVNULL)[0][given.STDIN] == {"kind": "nothing"}


def test_a_terminal_is_one() -> None:
    ours, theirs = os.openpty()
    os.write(ours, b"\x04")  # the end of input, as a keyboard gives it
    assert captured(theirs)[0][given.STDIN] == {"kind": "terminal"}
    os.close(theirs)
    os.close(ours)


@pytest.mark.parametrize("numbers", [[0], [0, 1, 2], [0, 2, 3, 8], []])
def test_processors_are_read_back_as_they_were_written(numbers: list[int]) -> None:
    assert given.processors({given.AFFINITY: given.ranges(numbers)}) == set(numbers)


@pytest.mark.parametrize("text", ["3-1", "a", "-1", "0-", "1;2", 7, None, ["0"]])
def test_what_names_no_processors_gives_none(text: object) -> None:
    assert given.processors({given.AFFINITY: text}) == frozenset()


def test_as_many_others_do_where_the_recorded_processors_are_not_there() -> None:
    there = given.available_processors()
    before = os.sched_getaffinity(0)
    far = given.ranges(range(4000, 4000 + len(there)))
    assert given.fitting_processors({given.AFFINITY: far}) == there
    more = given.ranges(range(4000, 4001 + len(there)))
    assert given.fitting_processors({given.AFFINITY: more}) == frozenset()
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    ("text", "mask"), [("0022", 0o22), ("077", 0o77), ("99", None), (18, None), ("00000777", None)]
)
def test_a_mask_is_octal_digits(text: object, mask: int | None) -> None:
    assert given.mask({given.UMASK: text}) == mask
