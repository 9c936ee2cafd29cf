"""One seed for every generator that all code shares, and nothing else is touched."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from manifest.determinism import seed_everything
from manifest.errors import ArgumentInvalid, ManifestError
from manifest.launching import launch
from manifest.rundir import run_directories


def drawn() -> list[Any]:
    return [random.random(), float(np.random.rand()), torch.rand(1).item()]


def test_the_same_seed_gives_the_same_numbers_in_every_library() -> None:
    unseeded = [drawn(), drawn()]
    assert not any(first == second for first, second in zip(*unseeded, strict=True))
    seed_everything(1)
    first = drawn()
    seed_everything(1)
    assert drawn() == first
    seed_everything(2)
    assert not any(one == two for one, two in zip(drawn(), first, strict=True))


def test_it_seeds_as_each_library_does() -> None:
    seed_everything(np.int64(7))
    found = drawn()
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    assert drawn() == found


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, "1", True, None])
def test_what_not_every_library_takes_is_refused_and_nothing_seeded(seed: Any) -> None:
    states = random.getstate(), torch.get_rng_state()
    with pytest.raises(ArgumentInvalid, match="expected an integer from 0 to 4294967295") as raised:
        seed_everything(seed)
    assert isinstance(raised.value, (ManifestError, ValueError))
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


def test_the_greatest_seed_is_taken() -> None:
    assert seed_everything(2**32 - 1)["torch.cpu"].outcome == "set"


def test_generators_of_the_programs_own_keep_theirs() -> None:
    own = torch.Generator().manual_seed(3), random.Random(3), np.random.default_rng(3)
    seed_everything(1)
    assert own[0].initial_seed() == 3
    assert own[1].random() == random.Random(3).random()
    assert own[2].random() == np.random.default_rng(3).random()


def test_a_seed_waits_for_a_device_that_has_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    # As a build with CUDA does, which this machine need not have.
    monkeypatch.setattr(torch.cuda, "_is_compiled", lambda: True)
    report = seed_everything(5)
    assert report["torch.cuda"].outcome == "pending"
    assert not torch.cuda._initialized
    queued = [call[0] for call in torch.cuda._lazy_seed_tracker.get_calls() if call]
    assert [cell.cell_contents for call in queued for cell in call.__closure__ or ()] == [5]


def test_numpy_with_other_bits_is_seeded_too() -> None:
    shared: Any = np.random  # whose stubs lack both
    before = shared.get_bit_generator()
    shared.set_bit_generator(np.random.PCG64(1))
    try:
        seed_everything(1)
        assert np.random.rand() == np.random.Generator(np.random.PCG64(1)).random()
    finally:
        shared.set_bit_generator(before)


LATER = """
import json, sys
from manifest.determinism import seed_everything
seed_everything(3)
report = seed_everything(4)
imported = [name for name in ("random", "numpy", "torch") if name in sys.modules]
import torch, random
import numpy as np
print(json.dumps({
    "imported": imported, "outcomes": {item.what: item.outcome for item in report.items},
    "drawn": [random.random(), float(np.random.rand()), torch.rand(1).item()],
}))
"""


@pytest.mark.parametrize("hash_seed", ["", "0"])
def test_nothing_is_imported_and_what_comes_later_is_seeded_then(hash_seed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LATER],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(done.stdout)
    assert said["imported"] == []
    pending = dict.fromkeys(("random", "numpy.random", "torch"), "pending")
    late = "equal already" if hash_seed else "too late"
    assert said["outcomes"] == {**pending, "hash seed": late}
    seed_everything(4)
    assert said["drawn"] == drawn()


RECORDED = """
import random, sys, time
import numpy as np
import torch
import manifest
run = manifest.record(seed=time.time_ns() % 2**32)
model = torch.nn.Linear(2, 1)
loss = (model(torch.rand(3, 2)) * random.random() * np.random.rand()).sum()
loss.backward()
run.step(loss=loss, model=model)  # an optimizer would import the compiler
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    def write(source: str) -> Path:
        (tmp_path / "train.py").write_text(source)
        return tmp_path

    monkeypatch.chdir(tmp_path)
    return write


def test_a_seed_given_to_record_is_noted_where_the_program_gives_it_and_given_again(
    write: Callable[[str], Path],
) -> None:
    folder = write(RECORDED)
    launched = launch(["train.py"], base=folder / ".manifest")
    calls = launched.run.document()["sections"]["seeds"]["calls"]
    given = {"random.seed": 6, "torch.manual_seed": 6, "numpy.random.seed": 8}  # NumPy's comes late
    assert set(calls) == {f"train.py:{line} {function}" for function, line in given.items()}
    assert len(set(calls.values())) == 1
    replay = [str(Path(sys.executable).with_name("manifest")), "replay", launched.run.id]
    done = subprocess.run(replay, capture_output=True, text=True, check=False)
    assert "IDENTICAL" in done.stdout, done.stdout + done.stderr


def test_the_generators_of_a_run_with_a_seed_are_recorded_as_they_were_seeded(
    write: Callable[[str], Path],
) -> None:
    folder = write("import random, manifest\nmanifest.record(seed=1)\n")
    for _ in range(2):
        subprocess.run([sys.executable, "train.py"], check=True)
    first, second = [
        run.document()["sections"]["generators"]["python"]
        for run in run_directories(folder / ".manifest")
    ]
    assert first == second


def test_a_run_that_is_not_recorded_is_seeded_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import manifest

    monkeypatch.setenv("MANIFEST_MODE", "disabled")
    manifest.record(seed=6)
    found = drawn()
    seed_everything(6)
    assert drawn() == found
    with pytest.raises(ArgumentInvalid):
        manifest.record(seed=-6)
