"""Losses and samples: what was written is read, and what is not there is told from a NaN."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifest import numbers
from manifest.numbers import LossWriter, Sample
from manifest.streams import UNOBSERVED
from manifest.trail import Trail, TrailWriter

given_losses = st.lists(st.none() | st.floats(), max_size=300)


def test_the_number_of_a_step_stands_at_its_step(tmp_path: Path) -> None:
    writer = TrailWriter(tmp_path / "main.bin")
    for step in range(200):
        writer.append(*[UNOBSERVED] * 5, number=None if step < 100 else float(step))
    writer.close()
    losses = Trail.open(tmp_path / "main.bin").losses
    assert all(numbers.is_unobserved(loss) for loss in losses[:100])
    assert list(losses[100:]) == [float(step) for step in range(100, 200)]


@given(given_losses)
def test_losses_are_kept_exactly(given_losses: list[float | None]) -> None:
    writer = LossWriter()
    content = b""
    for start in range(0, len(given_losses), 64):
        content += writer.add(start, given_losses[start : start + 64])
    found = numbers.losses(content)
    if all(loss is None for loss in given_losses):
        assert list(found) == []
        return
    assert len(found) == len(given_losses)
    for loss, read in zip(given_losses, found, strict=True):
        assert numbers.is_unobserved(read) == (loss is None)
        assert loss is None or math.isnan(loss) or loss == read
        assert loss is None or math.isnan(loss) == math.isnan(read)


def test_a_run_without_losses_has_no_file_of_them(tmp_path: Path) -> None:
    writer = TrailWriter(tmp_path / "main.bin")
    writer.append(*[UNOBSERVED] * 5)
    writer.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["main.bin"]


KILLED = """
import os, signal, sys
from manifest.trail import TrailWriter
writer = TrailWriter(sys.argv[1])
for step in range(150):
    writer.append(*[b"d" * 16] * 5, number=step)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_loses_the_last_few_at_most(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "main.bin")]
    assert subprocess.run(command, check=False).returncode == -9
    trail = Trail.open(tmp_path / "main.bin")
    assert trail.steps == 150
    assert list(trail.losses) == [float(step) for step in range(len(trail.losses))]
    assert len(trail.losses) == 128


def test_samples_are_read_as_written_and_torn_ones_not_at_all(tmp_path: Path) -> None:
    sample = Sample(norm=math.inf, size=9, elements=bytes(range(16)))
    writer = TrailWriter(tmp_path / "main.bin")
    writer.close(samples={"weight": sample})
    assert Trail.open(tmp_path / "main.bin").samples == {"weight": sample}
    path = tmp_path / "main.samples"
    os.truncate(path, path.stat().st_size - 1)
    assert Trail.open(tmp_path / "main.bin").samples == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"schema": 2, "tensors": {}}',
        b'{"schema": 1, "tensors": []}',
        b'{"schema": 1, "tensors": {"a": {"norm": 1.0, "size": 1, "elements": "AAAA"}}}',
        b'{"schema": 1, "tensors": {"a": {"norm": "x", "size": 1, "elements": ""}}}',
    ],
)
def test_what_is_no_file_of_samples_holds_none(content: bytes) -> None:
    assert numbers.decoded(content) == {}
