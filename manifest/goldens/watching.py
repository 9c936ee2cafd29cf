"""Watch the training of one test, and find where it is not that of a golden."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from manifest.canonical import Json
from manifest.comparing import WORDS, compare_trails, sentence
from manifest.errors import GoldenInvalid
from manifest.goldens.surroundings import surroundings
from manifest.goldens.texts import Golden, written
from manifest.pytorch import hooks
from manifest.pytorch.watching import Watcher
from manifest.trail import Trail


@dataclass
class Seen:
    """What was seen of a training, once it is over."""

    text: str = ""
    """Its golden; empty where there is none, as `problem` says."""
    problem: str | None = None


def is_watched() -> bool:
    """Whether a recorder watches this process already."""
    return hooks.listener() is not None


@contextmanager
def watched(test: str) -> Iterator[Seen]:
    """Watch what is trained in this block.

    Args:
        test: Whose golden it is.
    """
    seen = Seen()
    settings: dict[str, dict[str, Json]] = {"training": {}}
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="manifest-golden-") as folder:
        path = Path(folder) / "main.bin"
        watcher = Watcher(
            lambda: path,
            on_note=lambda where, what: notes.append(f"{where}: {what}"),
            on_optimizer=lambda name, facts: settings["training"].update({name: facts}),
            on_first_step=lambda: settings.update(surroundings()),
        )
        watcher.install()
        try:
            yield seen
        finally:
            was_replaced = hooks.listener() is not watcher
            watcher.finish()
        if was_replaced:
            seen.problem = "it records a run of its own, which nothing else watches then"
        elif notes:
            seen.problem = f"it could not be watched: {notes[0]}"
        elif not watcher.steps:
            seen.problem = "no optimizer made a step in it"
        else:
            seen.text = written(test, Trail.open(path), settings)


def parting(golden: Golden, now: Golden) -> str | None:
    """Where a training is not that of its golden, in a sentence; None if it is.

    Raises:
        GoldenInvalid: The two were not made in one way.
    """
    if golden.trail.algorithm != now.trail.algorithm:
        raise GoldenInvalid(f"its digests are {golden.trail.algorithm}, not {now.trail.algorithm}")
    found = compare_trails({"main": golden.trail}, {"main": now.trail})
    if found.divergence is not None:
        return sentence(found)
    for stream, step in found.one_sided.items():
        return f"only one of them has {WORDS[stream]} at step {step}"
    if found.steps_before != found.steps_after:
        return f"it made {found.steps_after} steps, of which the golden has {found.steps_before}"
    return None
