"""Segments: few look-ups say what reading every row would say."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifest.comparing import compare_trails
from manifest.segments import SEGMENT_STEPS, Segments, unlike
from manifest.streams import ROW_SIZE, STREAMS, UNOBSERVED
from manifest.trail import Trail, TrailWriter

MOST_STEPS = 5 * SEGMENT_STEPS + 7
OTHER = b"other bits here!"
SAME = b"the same bits..."

Cells = dict[tuple[int, str], bytes]


def write(path: Path, *, steps: int, cells: Cells | None = None) -> Path:
    """A trail in which all is `SAME`, but for some cells."""
    writer = TrailWriter(path)
    changed = {step for step, _ in cells or {}}
    for step in range(steps):
        if step in changed:
            row = [(cells or {}).get((step, stream), SAME) for stream in STREAMS]
        else:
            row = [SAME] * len(STREAMS)
        writer.append(*row)
    writer.close()
    return path


def first_unequal(before: Trail, after: Trail) -> int | None:
    """By looking at every cell."""
    for step in range(min(before.steps, after.steps)):
        for stream in STREAMS:
            a, b = before.digest(step, stream), after.digest(step, stream)
            if a is not None and b is not None and a != b:
                return step
    return None


def found_step(before: Trail, after: Trail) -> int | None:
    found = compare_trails({"main": before}, {"main": after}).divergence
    return None if found is None else found.step


places = st.tuples(st.integers(0, MOST_STEPS - 1), st.sampled_from(STREAMS))
spans = st.tuples(st.integers(0, MOST_STEPS), st.integers(1, MOST_STEPS), st.sampled_from(STREAMS))


@st.composite
def trails(draw: st.DrawFn) -> tuple[int, Cells]:
    steps = draw(st.integers(0, MOST_STEPS))
    cells = dict.fromkeys(draw(st.lists(places, max_size=3)), OTHER)
    for start, length, stream in draw(st.lists(spans, max_size=3)):
        for step in range(start, min(start + length, steps)):
            cells[step, stream] = UNOBSERVED
    return steps, cells


@settings(max_examples=60, deadline=None)
@given(one=trails(), other=trails(), torn=st.sampled_from([0, 0, 1, 3 * ROW_SIZE + 1]))
def test_few_look_ups_say_what_every_row_says(
    tmp_path_factory: pytest.TempPathFactory,
    one: tuple[int, Cells],
    other: tuple[int, Cells],
    torn: int,
) -> None:
    folder = tmp_path_factory.mktemp("trails")
    paths = [
        write(folder / f"{name}.bin", steps=steps, cells=cells)
        for name, (steps, cells) in (("before", one), ("after", other))
    ]
    if torn:
        os.truncate(paths[1], max(0, paths[1].stat().st_size - torn))
    before, after = (Trail.open(path) for path in paths)
    assert found_step(before, after) == first_unequal(before, after)
    assert before.segments is not None or before.steps < SEGMENT_STEPS
    assert set(before.streams()) == {
        stream
        for stream in STREAMS
        if any(before.digest(step, stream) is not None for step in range(before.steps))
    }


class Counting(Segments):
    """Counts what is looked up."""

    looked_up = 0

    def node(self, start: int, height: int) -> bytes:
        Counting.looked_up += 1
        return super().node(start, height)


@pytest.mark.parametrize("segment", [0, 700, 1023])
def test_the_number_of_look_ups_is_that_of_levels(segment: int) -> None:
    count = 1024
    trees = []
    for changed in (None, segment):
        nodes: list[bytes] = []
        grown: list[bytes] = []
        for index in range(count):
            node = (OTHER if index == changed else SAME) * len(STREAMS)
            grown_node, level = node, index + 1
            nodes.append(grown_node)
            while level % 2 == 0:
                left = grown.pop()
                grown_node = bytes(a ^ b ^ 1 for a, b in zip(left, grown_node, strict=True))
                nodes.append(grown_node)
                level //= 2
            grown.append(grown_node)
        trees.append(Counting(b"".join(nodes), count))
    Counting.looked_up = 0
    assert list(unlike(*trees)) == [segment]
    assert Counting.looked_up == 2 * (1 + 2 * 10)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    steps = 3 * SEGMENT_STEPS + 5
    return write(tmp_path / "a.bin", steps=steps), write(tmp_path / "b.bin", steps=steps)


def change_row(path: Path, step: int) -> None:
    header = path.read_bytes().index(b"\n") + 1
    with path.open("r+b") as file:
        file.seek(header + step * ROW_SIZE)
        file.write(OTHER)


def test_rows_that_were_changed_later_are_read(pair: tuple[Path, Path]) -> None:
    change_row(pair[1], 1500)
    assert Trail.open(pair[1]).segments is None
    assert found_step(*map(Trail.open, pair)) == 1500


def test_a_row_changed_behind_its_time_is_seen_where_it_is_looked_at(
    pair: tuple[Path, Path],
) -> None:
    times = pair[1].stat()
    change_row(pair[1], SEGMENT_STEPS * 3 - 1)
    os.utime(pair[1], ns=(times.st_atime_ns, times.st_mtime_ns))
    assert Trail.open(pair[1]).segments is None
    assert found_step(*map(Trail.open, pair)) == SEGMENT_STEPS * 3 - 1


def test_digests_that_are_not_of_the_rows_tell_nothing(tmp_path: Path) -> None:
    steps = 3 * SEGMENT_STEPS
    before = write(tmp_path / "a.bin", steps=steps, cells={(5, "loss"): OTHER})
    after = write(tmp_path / "b.bin", steps=steps, cells={(2000, "loss"): OTHER})
    times = before.stat()
    change_row(before, 3)
    os.utime(before, ns=(times.st_atime_ns, times.st_mtime_ns))
    opened = [Trail.open(path) for path in (before, after)]
    assert all(trail.segments is not None for trail in opened)
    assert found_step(*opened) == 3


@pytest.mark.parametrize("cut", [1, 16, 17, 100])
def test_a_torn_file_of_segments_tells_nothing(pair: tuple[Path, Path], cut: int) -> None:
    path = pair[0].with_suffix(".segments")
    assert Trail.open(pair[0]).segments is not None
    os.truncate(path, path.stat().st_size - cut)
    assert Trail.open(pair[0]).segments is None
    assert found_step(*map(Trail.open, pair)) is None


def test_a_copy_that_keeps_times_keeps_its_segments(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    for copy, copying in (("kept", shutil.copy2), ("lost", shutil.copyfile)):
        folder = tmp_path / copy
        folder.mkdir()
        for suffix in (".bin", ".segments"):
            source = pair[0].with_suffix(suffix)
            copying(source, folder / source.name)
        if copy == "lost":
            os.utime(folder / "a.bin", (0, 0))
        assert (Trail.open(folder / "a.bin").segments is not None) is (copy == "kept")


def test_a_short_trail_has_no_segments(tmp_path: Path) -> None:
    write(tmp_path / "a.bin", steps=SEGMENT_STEPS - 1)
    assert not (tmp_path / "a.segments").exists()


def test_segments_cost_little_room(pair: tuple[Path, Path]) -> None:
    assert pair[0].with_suffix(".segments").stat().st_size < pair[0].stat().st_size / 300
