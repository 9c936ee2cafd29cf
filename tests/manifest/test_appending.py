"""A file that is appended to: nothing is written into, or closed, that came under its number."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from manifest.appending import AppendedFile
from manifest.journal import Journal, entries
from manifest.operations import Operation, OperationWriter, operations
from manifest.streams import DIGEST_SIZE
from manifest.trail import Ending, Trail, TrailWriter


def taken(others: Path, count: int = 20) -> list[int]:
    """Close what is open in the folder, and put other files in its place, as a daemon may."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        link = Path(f"/proc/self/fd/{fd}")
        if os.path.lexists(link) and link.readlink().is_relative_to(others.parent):
            os.close(fd)
    others.mkdir()
    return [os.open(others / str(number), os.O_WRONLY | os.O_CREAT) for number in range(count)]


def assert_untouched(others: Path, opened: list[int]) -> None:
    for fd in opened:
        os.write(fd, b"own")
        os.close(fd)
    assert {path.read_bytes() for path in others.iterdir()} == {b"own"}


def test_a_file_is_found_again_when_another_took_its_number(tmp_path: Path) -> None:
    file = AppendedFile(tmp_path / "file")
    file.write(b"one ")
    opened = taken(tmp_path / "others")
    file.write(b"two ")
    file.write(b"three")
    assert file.status().st_size == 13
    file.close()
    assert_untouched(tmp_path / "others", opened)
    assert (tmp_path / "file").read_bytes() == b"one two three"


def test_it_leaves_the_low_numbers_to_the_program(tmp_path: Path) -> None:
    file = AppendedFile(tmp_path / "file")
    opened = taken(tmp_path / "others", 1)
    gc.collect()  # what others have left would give numbers back while this looks
    following = next_number()
    file.write(b"one")
    assert next_number() == following
    file.close()
    assert_untouched(tmp_path / "others", opened)


def next_number() -> int:
    """What the program would be given for the next file that it opens."""
    os.close(number := os.open(os.devnull, os.O_RDONLY))
    return number


def test_nothing_is_closed_that_took_its_number(tmp_path: Path) -> None:
    file = AppendedFile(tmp_path / "file")
    opened = taken(tmp_path / "others")
    file.close()
    assert_untouched(tmp_path / "others", opened)


@pytest.mark.parametrize("is_replaced", [False, True])
def test_it_fails_where_the_file_is_gone(tmp_path: Path, is_replaced: bool) -> None:
    file = AppendedFile(tmp_path / "file")
    file.write(b"one")
    (tmp_path / "file").rename(tmp_path / "elsewhere")
    if is_replaced:
        (tmp_path / "file").touch()
    opened = taken(tmp_path / "others")
    with pytest.raises(OSError, match="in its place" if is_replaced else "No such file"):
        file.write(b"two")
    file.close()
    assert_untouched(tmp_path / "others", opened)
    assert not is_replaced or (tmp_path / "file").read_bytes() == b""


def test_a_second_writer_is_refused_a_new_file(tmp_path: Path) -> None:
    AppendedFile(tmp_path / "file").close()
    with pytest.raises(FileExistsError):
        AppendedFile(tmp_path / "file")
    AppendedFile(tmp_path / "file", is_new=False).close()


def test_a_journal_a_trail_and_operations_go_on(tmp_path: Path) -> None:
    digest = bytes(DIGEST_SIZE - 1) + b"1"
    journal, trail = Journal(tmp_path / "main.jsonl"), TrailWriter(tmp_path / "main.bin")
    dense = OperationWriter()

    def step(number: int) -> None:
        journal.append("note", where="test", what=str(number))
        trail.append(digest, digest, digest, digest, digest, number=float(number))
        dense.add(number, Operation("add", "00"))
        dense.end_step(number, str(tmp_path / "main.ops"))

    for number in range(100):
        step(number)
    opened = taken(tmp_path / "others")
    for number in range(100, 200):
        step(number)
    journal.close()
    trail.close(Ending())
    dense.close(str(tmp_path / "main.ops"), is_compiled=False)
    assert_untouched(tmp_path / "others", opened)
    assert trail.failure is dense.failure is None
    assert len(list(entries(tmp_path / "main.jsonl"))) == 200
    read = Trail.open(tmp_path / "main.bin")
    assert (read.steps, read.final is not None) == (200, True)
    assert len(operations((tmp_path / "main.ops").read_bytes()).steps) == 200
