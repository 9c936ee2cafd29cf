"""Rows that wait for an accelerator: written in their order, and never waited for by a fork."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch
from torch import Tensor
from xxhash import xxh3_128_digest

from manifest.pytorch.rows import Row, Rows, Watched
from manifest.pytorch.states import Drawn
from manifest.pytorch.sums import device_sums
from manifest.pytorch.transfers import Reading
from manifest.pytorch.watching import Watcher
from manifest.trail import Trail, TrailWriter


class Event:
    def __init__(self) -> None:
        self.is_done = False

    def query(self) -> bool:
        return self.is_done

    def synchronize(self) -> None:
        self.is_done = True


def sum_of(tensor: Tensor) -> bytes:
    return xxh3_128_digest(device_sums([tensor]).tensor().numpy().tobytes(), 7)


def on_its_way(tensor: Tensor) -> Reading:
    return Reading([None], [([(0, 7)], device_sums([tensor]))])


def test_rows_wait_for_the_accelerator_in_their_order(tmp_path: Path) -> None:
    events = [Event() for _ in range(3)]
    waiting = iter(events)
    rows = Rows(transfer=lambda words: (words, next(waiting)), longest=-1)
    trail = TrailWriter(tmp_path / "main.bin")
    losses = [torch.tensor(float(step)) for step in range(3)]
    written = []
    for loss in losses:
        reading = on_its_way(loss)
        drawn = Drawn(("python",), [b"r" * 16])
        rows.add(Row(Watched(None, (), 1), drawn, None, reading, None, None), trail)
        written.append(trail.steps)
    assert written == [0, 0, 0]
    events[1].is_done = True
    rows.write(trail)
    assert trail.steps == 0
    events[0].is_done = True
    rows.write(trail)
    assert trail.steps == 2
    rows.write(trail, is_last=True)
    trail.close()
    found = Trail.open(tmp_path / "main.bin")
    assert [found.digest(step, "loss") for step in range(3)] == [sum_of(loss) for loss in losses]


def test_words_of_several_steps_are_sent_together(tmp_path: Path) -> None:
    sent: list[int] = []

    def transfer(words: Tensor) -> tuple[Tensor, Event]:
        sent.append(words.numel())
        return words, Event()

    rows, trail = Rows(transfer=transfer, longest=math.inf), TrailWriter(tmp_path / "main.bin")
    watched, drawn = Watched(None, (), 1), Drawn((), [])
    losses = [torch.tensor(float(step)) for step in range(70)]
    for loss in losses:
        rows.add(Row(watched, drawn, None, on_its_way(loss), None, None), trail)
    assert sent == [128]
    rows.write(trail, is_last=True)
    assert sent == [128, 12]
    trail.close()
    found = Trail.open(tmp_path / "main.bin")
    assert [found.digest(step, "loss") for step in range(70)] == [sum_of(loss) for loss in losses]


def test_a_fork_never_ends_what_its_parent_waits_for(tmp_path: Path) -> None:
    class Fatal(Event):
        def __del__(self) -> None:
            if os.getpid() != parent:  # as CUDA does, where it was not started
                os._exit(9)

    parent = os.getpid()
    watcher = Watcher(lambda: tmp_path / "main.bin", on_note=lambda *_: None)
    watcher._rows = Rows(transfer=lambda words: (words, Fatal()))
    row = Row(Watched(None, (), 1), Drawn((), []), None, on_its_way(torch.ones(1)), None, None)
    watcher._rows.add(row, None)
    del row
    child = os.fork()
    if child == 0:
        watcher.begin_in_fork()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
