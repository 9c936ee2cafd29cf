"""The form of a trail: what is written is read, wherever the file ends."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from manifest.errors import DamagedRun, NewerSchema
from manifest.streams import ROW_SIZE, STREAMS, UNOBSERVED
from manifest.trail import Ending, Trail, TrailWriter, is_torn, summarize


def digest_of(step: int, stream: str) -> bytes:
    return bytes([step + 1, STREAMS.index(stream) + 1]) * 8


def write_trail(path: Path, *, steps: int) -> None:
    writer = TrailWriter(path)
    for step in range(steps):
        digests = [digest_of(step, "param"), digest_of(step, "grad")]
        writer.append_leaves(step, "param", ("weight", "bias"), digests)
        writer.append(*(digest_of(step, stream) for stream in STREAMS))
    writer.close(Ending(rng={"python": "00"}, tensors={"weight": "11"}))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_trail(tmp_path / "main.bin", steps=3)
    trail = Trail.open(tmp_path / "main.bin")
    assert trail.steps == 3
    assert trail.streams() == STREAMS
    assert trail.digest(2, "grad") == digest_of(2, "grad")
    assert trail.leaves.at(1, "param") == {
        "weight": digest_of(1, "param")[:8],
        "bias": digest_of(1, "grad")[:8],
    }
    assert trail.leaves.steps("param") == [0, 1, 2]
    assert trail.leaves.at(1, "grad") is None
    assert trail.final == Ending(rng={"python": "00"}, tensors={"weight": "11"})


def test_a_row_has_the_size_that_is_promised(tmp_path: Path) -> None:
    write_trail(tmp_path / "one.bin", steps=1)
    write_trail(tmp_path / "two.bin", steps=2)
    sizes = [(tmp_path / name).stat().st_size for name in ("one.bin", "two.bin")]
    assert sizes[1] - sizes[0] == ROW_SIZE == 80


def test_every_prefix_reads_as_a_prefix(tmp_path: Path) -> None:
    write_trail(tmp_path / "main.bin", steps=3)
    whole = (tmp_path / "main.bin").read_bytes()
    header = whole.index(b"\n") + 1
    for end in range(len(whole)):
        (tmp_path / "torn.bin").write_bytes(whole[:end])
        trail = Trail.open(tmp_path / "torn.bin")
        assert trail.steps == max(0, end - header) // ROW_SIZE
        for step in range(trail.steps):
            assert trail.digest(step, "param") == digest_of(step, "param")


def test_every_prefix_of_the_tensors_reads_as_a_prefix(tmp_path: Path) -> None:
    write_trail(tmp_path / "main.bin", steps=3)
    whole = (tmp_path / "main.tensors").read_bytes()
    seen = set()
    for end in range(len(whole) + 1):
        (tmp_path / "main.tensors").write_bytes(whole[:end])
        trail = Trail.open(tmp_path / "main.bin")
        steps = trail.leaves.steps("param")
        assert steps == list(range(len(steps)))
        for step in steps:
            assert (trail.leaves.at(step, "param") or {})["weight"] == digest_of(step, "param")[:8]
        seen.add(len(steps))
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize("limit", [1000, 1024 + 137, 3000])
def test_a_trail_that_cannot_be_written_on_is_torn(limit: int, tmp_path: Path) -> None:
    # Whichever of its files it was: steps that are not there must not pass for steps not made.
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            write_trail(tmp_path / "main.bin", steps=200)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert is_torn(tmp_path / "main.bin")
    trail = Trail.open(tmp_path / "main.bin")
    assert 0 < trail.steps < 200
    assert all(trail.digest(step, "param") == digest_of(step, "param") for step in range(5))


def test_a_whole_trail_is_not_torn(tmp_path: Path) -> None:
    write_trail(tmp_path / "main.bin", steps=200)
    assert not is_torn(tmp_path / "main.bin")


def test_a_torn_ending_is_no_ending(tmp_path: Path) -> None:
    write_trail(tmp_path / "main.bin", steps=1)
    (tmp_path / "main.final").write_bytes((tmp_path / "main.final").read_bytes()[:-1])
    assert Trail.open(tmp_path / "main.bin").final is None


def test_what_was_not_observed_is_none(tmp_path: Path) -> None:
    writer = TrailWriter(tmp_path / "main.bin")
    writer.append(digest_of(0, "rng"), UNOBSERVED, UNOBSERVED, UNOBSERVED, UNOBSERVED)
    writer.close()
    trail = Trail.open(tmp_path / "main.bin")
    assert trail.digest(0, "batch") is None
    assert trail.streams() == ("rng",)
    assert summarize(tmp_path / "main.bin") == {
        "steps": 1,
        "streams": ["rng"],
        "algorithm": trail.algorithm,
    }


def test_a_step_that_is_not_there_is_refused(tmp_path: Path) -> None:
    write_trail(tmp_path / "main.bin", steps=2)
    with pytest.raises(IndexError, match="from 0 to 1, found 2"):
        Trail.open(tmp_path / "main.bin").digest(2, "rng")


def test_a_newer_trail_is_refused(tmp_path: Path) -> None:
    (tmp_path / "main.bin").write_text(json.dumps({"schema": 2, "algorithm": "x"}) + "\n")
    with pytest.raises(NewerSchema):
        Trail.open(tmp_path / "main.bin")
    assert summarize(tmp_path / "main.bin") is None


@pytest.mark.parametrize("line", ["", "[]", "{}", '{"schema": 1, "algorithm": "a", "row": 8}'])
def test_what_is_not_a_trail_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "main.bin").write_text(line + "\n")
    with pytest.raises(DamagedRun):
        Trail.open(tmp_path / "main.bin")


def test_a_trail_is_never_written_over(tmp_path: Path) -> None:
    write_trail(tmp_path / "main.bin", steps=1)
    before = (tmp_path / "main.bin").read_bytes()
    writer = TrailWriter(tmp_path / "main.bin")
    writer.append(*[digest_of(9, "rng")] * 5)
    writer.close()
    assert isinstance(writer.failure, FileExistsError)
    assert (tmp_path / "main.bin").read_bytes() == before


def test_a_folder_that_is_not_there_silences_the_writer(tmp_path: Path) -> None:
    write_trail_to_nowhere = TrailWriter(tmp_path / "missing" / "main.bin")
    write_trail_to_nowhere.append(*[digest_of(0, "rng")] * 5)
    write_trail_to_nowhere.append_leaves(0, "param", ("weight",), [digest_of(0, "param")])
    write_trail_to_nowhere.close(Ending())
    assert isinstance(write_trail_to_nowhere.failure, FileNotFoundError)
    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
import resource, sys
from manifest.trail import Ending, TrailWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
writer = TrailWriter(sys.argv[1])
for step in range(100):
    writer.append_leaves(step, "param", ("weight",), [b"l" * 16])
    writer.append(*[b"d" * 16] * 5)
writer.close(Ending())
print(writer.steps, writer.failure)
"""


def test_a_full_disk_silences_the_writer_and_leaves_a_prefix(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "main.bin")]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said.startswith("100 ")
    assert "None" not in said
    trail = Trail.open(tmp_path / "main.bin")
    assert 0 < trail.steps < 100
    assert trail.digest(trail.steps - 1, "rng") == b"d" * 16


KILLED = """
import os, signal, sys
from manifest.trail import TrailWriter
writer = TrailWriter(sys.argv[1])
for step in range(5):
    writer.append(*[b"d" * 16] * 5)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_loses_no_row(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "main.bin")]
    assert subprocess.run(command, check=False).returncode == -9
    assert Trail.open(tmp_path / "main.bin").steps == 5


def test_closing_gives_every_descriptor_back(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    write_trail(tmp_path / "main.bin", steps=2)
    assert len(os.listdir("/proc/self/fd")) == before
