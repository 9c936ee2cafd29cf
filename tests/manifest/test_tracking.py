"""Generators of the program's own: recorded when named, put back in a replay, refused malformed."""

from __future__ import annotations

import base64
import json
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from manifest.canonical import Json, plain
from manifest.errors import StateNotRestorable
from manifest.launching import launch
from manifest.noticing import Noticed
from manifest.replaying import replay
from manifest.restoring import RestoredItem
from manifest.rundir import run_directories
from manifest.tracking import Tracking, capture_generator, restore_generator


class Journal:
    """What a run was told."""

    def __init__(self) -> None:
        self.generators: dict[str, dict[str, Json]] = {}
        self.notes: list[tuple[str, str]] = []
        self.items: list[RestoredItem] = []

    def section(self, name: str, values: dict[str, Json]) -> None:
        assert name == "generators"
        for key, value in values.items():
            self.generators.setdefault(key, {}).update(value)

    def note(self, where: str, what: object) -> None:
        self.notes.append((where, str(what)))

    def restored(self, items: Iterable[RestoredItem]) -> None:
        self.items += items


def modern(kind: Any) -> np.random.Generator:
    return np.random.Generator(kind(np.random.SeedSequence(5)))


MAKERS: dict[str, Callable[[], Any]] = {
    "Random": lambda: random.Random(5),
    "RandomState": lambda: np.random.RandomState(5),
    "torch": lambda: torch.Generator().manual_seed(5),
    "PCG64": lambda: modern(np.random.PCG64),
    "PCG64DXSM": lambda: modern(np.random.PCG64DXSM),
    "Philox": lambda: modern(np.random.Philox),
    "SFC64": lambda: modern(np.random.SFC64),
    "MT19937": lambda: modern(np.random.MT19937),
    "bits": lambda: np.random.PCG64(5),
}


def draw(generator: Any) -> list[Any]:
    """Numbers of every kind that leave a half word, or a second normal, behind."""
    if isinstance(generator, random.Random):
        return [generator.random(), generator.gauss(0, 1)]
    if isinstance(generator, np.random.RandomState):
        return [generator.rand(), generator.randn()]
    if isinstance(generator, torch.Generator):
        return [torch.rand(2, generator=generator).tolist(), draw_normal(generator)]
    if isinstance(generator, np.random.Generator):
        return [generator.random(), generator.integers(99, dtype=np.uint32), generator.normal()]
    return [generator.random_raw()]


def draw_normal(generator: torch.Generator) -> list[float]:
    return torch.randn(3, generator=generator).tolist()


def through_json(entry: dict[str, Json]) -> Any:
    return json.loads(json.dumps(plain(entry)))


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("before", range(3))
def test_a_restored_generator_draws_the_same_numbers(kind: str, before: int) -> None:
    generator, other = MAKERS[kind](), MAKERS[kind]()
    for _ in range(before):
        draw(generator)
    entry = through_json(capture_generator(generator))
    first = [draw(generator) for _ in range(3)]
    draw(other), draw(other), draw(other)
    assert restore_generator("own", other, entry).outcome == "restored"
    assert [draw(other) for _ in range(3)] == first


@pytest.mark.parametrize("kind", MAKERS)
def test_capture_draws_nothing(kind: str) -> None:
    generator = MAKERS[kind]()
    draw(generator)
    first = capture_generator(generator)
    assert capture_generator(generator) == first
    assert restore_generator("own", generator, through_json(first)).outcome == "equal already"
    draw(generator)
    assert capture_generator(generator) != first, "the neighbour that draws is seen"


def damaged(entry: dict[str, Any], position: int, value: int) -> dict[str, Any]:
    data = bytearray(base64.b64decode(entry["state"]["$bytes"]))
    data[position] = value
    return {**entry, "state": {"$bytes": base64.b64encode(data).decode()}}


MALFORMED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "nothing": lambda entry: None,
    "a text": lambda entry: "text",
    "no state": lambda entry: {"kind": entry["kind"]},
    "no base64": lambda entry: {**entry, "state": {"$bytes": "?"}},
    "empty": lambda entry: {**entry, "state": {"$bytes": ""}},
    "cut": lambda entry: {**entry, "state": {"$bytes": entry["state"]["$bytes"][:-4]}},
    "of another kind": lambda entry: {**entry, "kind": "other"},
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("fault", MALFORMED)
def test_a_malformed_state_is_refused(kind: str, fault: str) -> None:
    generator = MAKERS[kind]()
    entry = through_json(capture_generator(generator))
    draw(generator)
    found = capture_generator(generator)
    with pytest.raises(StateNotRestorable):
        restore_generator("own", generator, MALFORMED[fault](entry))
    assert capture_generator(generator) == found


@pytest.mark.parametrize(
    ("kind", "position"),
    [
        ("Random", 2498),  # the position among the words
        ("Random", 2508),  # not a finite second normal
        ("RandomState", 2497),
        ("torch", 9),  # words left
        ("torch", 17),  # the next word
        ("PCG64", 16),  # an even increment
        ("PCG64", 32),  # neither with nor without a half word
        ("PCG64DXSM", 32),
        ("Philox", 80),  # the position in the buffer
        ("Philox", 81),
        ("SFC64", 32),
        ("MT19937", 2497),
    ],
)
def test_a_state_that_no_generator_can_have_is_refused(kind: str, position: int) -> None:
    generator = MAKERS[kind]()
    entry = through_json(capture_generator(generator))
    if (kind, position) == ("Random", 2508):
        entry = damaged(entry, 2507, 0xF0)
        position, value = 2508, 0x7F
    else:
        value = 0x7E
    with pytest.raises(StateNotRestorable):
        restore_generator("own", generator, damaged(entry, position, value))


def test_a_state_of_torch_that_reads_past_its_words_is_refused() -> None:
    generator = MAKERS["torch"]()
    draw(generator)
    entry = through_json(capture_generator(generator))
    assert restore_generator("own", generator, entry).outcome == "equal already"
    with pytest.raises(StateNotRestorable):
        restore_generator("own", generator, damaged(entry, 16, 0x7E))


def test_another_bit_generator_is_refused() -> None:
    entry = through_json(capture_generator(MAKERS["PCG64"]()))
    with pytest.raises(StateNotRestorable, match="PCG64DXSM"):
        restore_generator("own", MAKERS["PCG64DXSM"](), entry)


def test_what_was_spawned_is_counted_and_made_up_for() -> None:
    generator = MAKERS["PCG64"]()
    generator.spawn(3)
    entry = through_json(capture_generator(generator))
    next_child = generator.spawn(1)[0].random()
    other = MAKERS["PCG64"]()
    assert restore_generator("own", other, entry).outcome == "equal already"
    assert other.spawn(1)[0].random() == next_child


def test_spawning_from_another_seed_is_told() -> None:
    entry = through_json(capture_generator(np.random.default_rng(5)))
    other = np.random.default_rng(6)
    assert "another seed" in restore_generator("own", other, entry).reason
    entry = through_json(capture_generator(other))
    entry["seed.children"] = 10**12
    assert "spawned" in restore_generator("own", other, entry).reason, (
        "and not a million million times"
    )


def test_names_are_numbered_and_an_object_is_tracked_once() -> None:
    journal = Journal()
    tracking = Tracking(journal)
    first = random.Random(1)
    for generator in (first, random.Random(2), first, random.Random(3)):
        tracking.track("fold", generator)
    tracking.track("python", random.Random(4))
    assert list(journal.generators) == ["fold", "fold#1", "fold#2", "python#1"]


def test_the_end_is_recorded_as_a_digest() -> None:
    journal = Journal()
    tracking = Tracking(journal)
    generator, still = random.Random(1), random.Random(1)
    tracking.track("drawn", generator)
    tracking.track("still", still)
    start = dict(journal.generators["drawn"])
    draw(generator)
    tracking.finish()
    assert journal.generators["drawn"]["state"] == start["state"]
    assert journal.generators["drawn"]["digest"] != journal.generators["still"]["digest"]


@pytest.mark.parametrize("value", [3, None, object(), random.SystemRandom(), random.Random, torch])
def test_what_is_no_generator_becomes_a_note(value: object) -> None:
    journal = Journal()
    Tracking(journal).track("odd", value)
    assert journal.generators == {}
    assert [where for where, _ in journal.notes] == ["generators.odd"]


def test_the_number_of_generators_is_bounded() -> None:
    journal = Journal()
    tracking = Tracking(journal)
    generators = [random.Random(1) for _ in range(260)]
    for generator in generators:
        tracking.track("many", generator)
    assert len(journal.generators) == 256


def test_generators_that_have_ended_are_not_kept() -> None:
    noticed = Noticed()
    noticed.begin(str(Path(__file__).parent))
    kept = []
    for number in range(100):
        generator = random.Random(number)
        noticed.add("random.Random", generator, sys._getframe())
        if number == 70:
            kept.append(generator)
    del generator
    (name,) = noticed.digests()
    assert name.endswith("#70")
    assert noticed.digests(but={id(kept[0])}) == {}
    noticed.end()


def test_a_generator_of_another_thread_is_kept_and_known_as_such() -> None:
    noticed = Noticed()
    noticed.begin(str(Path(__file__).parent))
    kept = random.Random(1)
    thread = threading.Thread(target=noticed.add, args=("random.Random", kept, sys._getframe()))
    thread.start()
    thread.join()
    assert len(noticed.digests()) == 1
    assert [is_mine for _, _, _, is_mine in noticed.living()] == [False]
    noticed.end()


TRACKED = """\
import random
import numpy as np
import torch
from descent import Descent
generators = random.Random(), np.random.default_rng(), np.random.RandomState()
own = torch.Generator()
own.seed()
if {is_recording}:
    import manifest
    run = manifest.record()
    for name, generator in zip(("a", "b", "c", "d"), (*generators, own)):
        run.track(name, generator)
weight = torch.zeros(1, requires_grad=True)
optimizer = Descent([weight], lr=0.1)
for _ in range(2):
    noise = generators[0].random() + generators[1].random() + generators[2].rand()
    (weight * (torch.rand(1, generator=own) + noise)).sum().backward()
    optimizer.step()
print(weight.item())
"""


def run(folder: Path, source: str) -> str:
    (folder / "script.py").write_text(source)
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def test_a_replay_puts_back_what_was_tracked(
    tmp_path: Path, descent: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(descent, tmp_path)
    first = run(tmp_path, TRACKED.format(is_recording=True))
    assert run(tmp_path, TRACKED.format(is_recording=False)) != first, "it is unseeded"
    base = tmp_path / ".manifest"
    (original,) = run_directories(base)

    verdict = replay(original, base=base)

    assert verdict.outcome == "identical", verdict.sentence
    assert capfd.readouterr().out == first
    before, after = original.document(), run_directories(base)[0].document()
    for name in ("a", "b", "c", "d"):
        entries = [each["sections"]["generators"][name] for each in (before, after)]
        assert entries[0]["digest"] == entries[1]["digest"]
        assert entries[0]["state"] == entries[1]["state"]
        assert name in {item.what for item in verdict.restores if item.outcome == "restored"}


def test_generators_of_the_project_are_noticed(
    tmp_path: Path, descent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(descent, tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.py").write_text(TRACKED.format(is_recording=False))
    done = launch([sys.executable, "script.py"], base=tmp_path / ".manifest")
    generators = done.run.document()["sections"]["generators"]
    names = ["random.Random script.py:5", "torch.Generator script.py:7"]
    assert sorted(generators) == names
    assert all(entry["digest"].startswith("xxh3:") for entry in generators.values())


def test_tracking_is_silent_where_nothing_records(tmp_path: Path) -> None:
    source = (
        "import os\nos.environ['MANIFEST_MODE'] = 'disabled'\n"
        "import manifest\nmanifest.record().track('own', 3)\n"
    )
    assert run(tmp_path, source) == ""
