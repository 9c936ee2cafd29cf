"""Journals: what is cut reads as a prefix, what is damaged is not believed."""

from __future__ import annotations

import os
import re
import resource
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manifest.journal import Journal, encode_entry, entries

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def written(folder: Path, count: int) -> bytes:
    journal = Journal(folder / "main.jsonl")
    for number in range(count):
        journal.append("section", section="config", values={"number": number, "text": "é\n" * 3})
    journal.close()
    return (folder / "main.jsonl").read_bytes()


def test_a_journal_cut_at_any_byte_reads_as_a_prefix(tmp_path: Path) -> None:
    data = written(tmp_path, 6)
    whole = list(entries(tmp_path / "main.jsonl"))
    ends = [index + 1 for index, byte in enumerate(data) if byte == ord("\n")]
    assert len(whole) == len(ends) == 6
    for size in range(len(data) + 1):
        (tmp_path / "cut.jsonl").write_bytes(data[:size])
        assert list(entries(tmp_path / "cut.jsonl")) == whole[: sum(end <= size for end in ends)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_journal_damaged_at_any_byte_reads_as_a_prefix(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    good = written(folder, 4)
    whole = list(entries(folder / "main.jsonl"))
    position = data.draw(st.integers(0, len(good) - 1))
    flipped = data.draw(st.integers(1, 255))
    bad = bytearray(good)
    bad[position] ^= flipped
    (folder / "bad.jsonl").write_bytes(bad)
    found = list(entries(folder / "bad.jsonl"))
    assert found == whole[: len(found)]
    assert len(found) <= good[:position].count(b"\n")


@given(st.dictionaries(st.text(), VALUES))
def test_any_value_can_be_journalled(values: dict[str, object]) -> None:
    line = encode_entry({"n": 0, "kind": "section", "values": values})
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1


def test_a_second_process_cannot_claim_the_same_journal(tmp_path: Path) -> None:
    Journal(tmp_path / "main.jsonl").close()
    with pytest.raises(FileExistsError):
        Journal(tmp_path / "main.jsonl")


def test_a_missing_journal_has_no_entries(tmp_path: Path) -> None:
    assert list(entries(tmp_path / "none.jsonl")) == []


def test_a_full_disk_silences_a_journal_and_keeps_what_was_written(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        journal = Journal(tmp_path / "main.jsonl")
        for _ in range(100):
            journal.append("note", where="test", what="x" * 50)
        os._exit(0 if journal.failure is not None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    found = list(entries(tmp_path / "main.jsonl"))
    assert 5 < len(found) < 12
    assert [entry["n"] for entry in found] == list(range(len(found)))


def test_a_folder_in_place_of_a_journal_is_named_and_not_held_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(IsADirectoryError, match=re.escape(str(tmp_path))):
        list(entries(tmp_path))
    assert os.listdir("/proc/self/fd") == before
