"""Seeds that a program gives: noted with place and value, and the program does not notice."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from manifest.launching import launch
from manifest.rundir import run_directories
from manifest.seeding import Seeds, watch_device

Sections = dict[str, Any]
Recorded = Callable[[str], Sections]

SEEDS = """\
import random, sys
from numpy.random import default_rng, seed as numpy_seed
import numpy as np
import torch
from torch import manual_seed
if sys.argv[1:] == ["record"]:
    import manifest
    manifest.record()
random.seed(1)
random.seed("two")
python = random.Random(3)
np.random.seed(4)
numpy_seed([5, 6])
legacy = np.random.RandomState(7)
modern = np.random.default_rng(8)
spawned = default_rng(np.random.SeedSequence(9))
manual_seed(10)
torch.cuda.manual_seed(11)
torch.cuda.manual_seed_all(12)
own = torch.Generator().manual_seed(13)
random.Random(), np.random.default_rng(), np.random.RandomState(), default_rng(modern)
torch.xpu.manual_seed(14)
torch.xpu.manual_seed_all(15)
torch.mtia.manual_seed(16)
torch.mtia.manual_seed_all(17)
"""

DRAWS = """
import inspect, pickle
print(random.random(), random.gauss(0, 1), np.random.rand(), torch.rand(3).tolist())
print(python.random(), legacy.rand(), modern.random(), spawned.random())
print(torch.rand(2, generator=own).tolist(), type(own), type(python), type(modern))
print(isinstance(torch.default_generator, torch.Generator), isinstance(3, torch.Generator))
functions = np.random.seed, np.random.default_rng, random.Random, torch.manual_seed
functions += torch.cuda.manual_seed, random.seed, torch.Generator
for function in functions:
    try:
        signature = str(inspect.signature(function))
    except ValueError:
        signature = None
    print(function.__name__, function.__module__, signature, function.__doc__)
print([pickle.loads(pickle.dumps(function)) is function for function in functions[:5]])
print([type(pickle.loads(pickle.dumps(value))) for value in (python, modern, legacy, own)])
for attempt in (
    lambda: random.seed([]),
    lambda: own.manual_seed("x"),
    lambda: own.manual_seed(seed=3),
    lambda: np.random.seed(-1),
    lambda: np.random.default_rng(-1),
    lambda: np.random.default_rng(x=1),
):
    try:
        attempt()
    except Exception as error:
        print(type(error))
"""


def run(folder: Path, source: str, *arguments: str) -> str:
    (folder / "script.py").write_text(source)
    command = [sys.executable, "script.py", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """Run source under Manifest; what it gave to the sections of the manifest."""
    monkeypatch.chdir(tmp_path)

    def launched(source: str) -> Sections:
        (tmp_path / "script.py").write_text(source)
        done = launch([sys.executable, "script.py"], base=tmp_path / ".manifest")
        assert done.exit_code == 0
        sections: Sections = done.run.document()["sections"]
        return sections

    return launched


def test_every_seed_is_noted_with_its_place(launched: Recorded) -> None:
    assert launched(SEEDS)["seeds"]["calls"] == {
        "script.py:9 random.seed": 1,
        "script.py:10 random.seed": "two",
        "script.py:11 random.Random": 3,
        "script.py:12 numpy.random.seed": 4,
        "script.py:13 numpy.random.seed": "[5, 6]",
        "script.py:14 numpy.random.RandomState": 7,
        "script.py:15 numpy.random.default_rng": 8,
        "script.py:16 numpy.random.default_rng": "SeedSequence( entropy=9, )",
        "script.py:17 torch.manual_seed": 10,
        "script.py:18 torch.cuda.manual_seed": 11,
        "script.py:19 torch.cuda.manual_seed_all": 12,
        "script.py:20 torch.Generator.manual_seed": 13,
        "script.py:22 torch.xpu.manual_seed": 14,
        "script.py:23 torch.xpu.manual_seed_all": 15,
        "script.py:24 torch.mtia.manual_seed": 16,
        "script.py:25 torch.mtia.manual_seed_all": 17,
    }


def test_a_seed_for_the_processor_of_apple_is_noted(launched: Recorded) -> None:
    sections = launched(
        "import torch\n"
        "torch._C._has_mps = True\n"  # and this stands in for what it would have
        "torch.mps._default_mps_generator = torch.Generator()\n"
        "torch.mps.manual_seed(1)\n"
        "torch.manual_seed(2)\n"
    )
    assert sections["seeds"]["calls"] == {
        "script.py:4 torch.mps.manual_seed": 1,
        "script.py:5 torch.manual_seed": 2,
    }


def test_a_call_to_record_notes_what_is_seeded_after_it(tmp_path: Path) -> None:
    run(tmp_path, SEEDS, "record")
    (directory,) = run_directories(tmp_path / ".manifest")
    calls = directory.document()["sections"]["seeds"]["calls"]
    assert calls["script.py:13 numpy.random.seed"] == "[5, 6]"
    assert calls["script.py:17 torch.manual_seed"] == 10, "a name that was bound before"
    bound_before_to_nothing_else = {"script.py:16 numpy.random.default_rng"}
    assert len(calls) == 16 - len(bound_before_to_nothing_else)


def test_a_program_that_seeds_does_not_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    plainly = run(tmp_path, SEEDS + DRAWS)
    assert run(tmp_path, SEEDS + DRAWS, "record") == plainly
    monkeypatch.chdir(tmp_path)
    launch([sys.executable, "script.py"], base=tmp_path / ".manifest")
    assert capfd.readouterr().out == plainly


def test_a_place_keeps_the_last_seeds_that_were_not_the_same(launched: Recorded) -> None:
    sections = launched(
        "import random\n"
        "for i in range(20): random.seed(i)\n"
        "for i in range(20): random.seed(0)\n"
        "for i in range(4): random.seed(i // 2)\n"
    )
    assert sections["seeds"]["calls"] == {
        "script.py:2 random.seed": list(range(12, 20)),
        "script.py:3 random.seed": 0,
        "script.py:4 random.seed": [0, 1],
    }


def test_places_are_limited(launched: Recorded) -> None:
    sections = launched("import random\n" + "random.seed(1)\n" * 100)
    assert len(sections["seeds"]["calls"]) == 64


def test_a_program_that_never_seeds_says_so(launched: Recorded) -> None:
    sections = launched("import random, tempfile\ntempfile.mkdtemp()\nrandom.random()\n")
    assert sections["seeds"]["calls"] == {}


def test_seeds_given_to_huge_and_odd_values_are_bounded(launched: Recorded) -> None:
    sections = launched(
        "import random, numpy as np\n"
        "random.seed(1 << 10_000)\n"
        "random.seed('x' * 10_000)\n"
        "np.random.seed(np.arange(300))\n"
        "np.random.seed(np.int64(5))\n"
    )
    huge, long, array, small = sections["seeds"]["calls"].values()
    assert huge == "an integer of 10001 bits"
    assert long == "x" * 200
    assert len(array) <= 200
    assert small == 5


def test_a_seed_is_on_disk_before_the_program_goes_on(launched: Recorded, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import os, random\nrandom.seed(5)\nos.kill(os.getpid(), 9)\n"
    )
    done = launch([sys.executable, "script.py"], base=tmp_path / ".manifest")
    document = done.run.document()
    assert document["status"] == "crashed"
    assert document["sections"]["seeds"]["calls"] == {"script.py:2 random.seed": 5}


def test_libraries_and_workers_seed_for_themselves(launched: Recorded) -> None:
    sections = launched(
        "import random, numpy, torch\n"
        "from torch.utils.data import DataLoader\n"
        "def init(worker):\n"
        "    random.seed(worker); numpy.random.seed(worker); torch.manual_seed(worker)\n"
        "for workers in (0, 2):\n"
        "    for batch in DataLoader(range(8), shuffle=True, num_workers=workers,\n"
        "                            worker_init_fn=init): pass\n"
        "torch.seed()\n"
    )
    assert sections["seeds"]["calls"] == {}


def test_the_first_step_tells_what_torch_was_seeded_with(launched: Recorded) -> None:
    sections = launched(
        "import torch\n"
        "torch.manual_seed(2**63)\n"
        "weight = torch.ones(1, requires_grad=True)\n"
        "weight.sum().backward()\n"
        "torch.optim.SGD([weight]).step()\n"
        "torch.manual_seed(1)\n"
    )
    assert sections["seeds"]["torch.initial_seed"] == {"$int": str(2**63)}


def test_a_compiled_function_seeds_as_it_does_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    source = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "import random, numpy as np, torch\n"
        "def noisy(x):\n"
        "    torch.manual_seed(5)\n"
        "    own = torch.Generator(); own.manual_seed(3)\n"
        "    np.random.seed(4)\n"
        "    other = float(np.random.default_rng(4).random())\n"
        "    return x + torch.rand(2) + torch.rand(2, generator=own) + other\n"
        "compiled = torch.compile(noisy, backend='eager')\n"
        "print([compiled(torch.ones(2)).tolist() for _ in range(3)])\n"
    )
    plainly = run(tmp_path, source)
    monkeypatch.chdir(tmp_path)
    launch([sys.executable, "script.py"], base=tmp_path / ".manifest")
    assert capfd.readouterr().out == plainly


def test_devices_that_an_older_pytorch_cannot_seed_are_left_alone() -> None:
    module = ModuleType("torch.mtia")
    before = dict(vars(module))
    watch_device(Seeds(), module)
    assert vars(module) == before
