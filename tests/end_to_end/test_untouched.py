"""What recording must leave as it is: generators, settings, modules, threads, the accelerator.

One program trains alone, with `record()`, and under `manifest run`, and says what it finds. So that
a fact here is worth something, its neighbour shows that it can fail.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from manifest.rundir import run_directories

PROGRAM = """
import hashlib, json, os, random, sys, threading, warnings
import numpy as np
import torch

random.seed(1); np.random.seed(2); torch.manual_seed(3)
generators = {
    "random": random, "random.Random": random.Random(4),
    "numpy legacy": np.random, "numpy.Generator": np.random.default_rng(5),
    "numpy.BitGenerator": np.random.Philox(6), "numpy.RandomState": np.random.RandomState(7),
    "torch": torch.default_generator, "torch.Generator": torch.Generator().manual_seed(8),
}

def state_of(generator):
    for read in ("getstate", "get_state"):
        if hasattr(generator, read):
            state = getattr(generator, read)()
            return state.tolist() if isinstance(state, torch.Tensor) else state
    return getattr(generator, "bit_generator", generator).state

def digests():
    # In full: NumPy shortens what it prints.
    with np.printoptions(threshold=sys.maxsize):
        return {name: hashlib.sha256(repr(state_of(generator)).encode()).hexdigest()
                for name, generator in generators.items()}

how = sys.argv[1]
before, modules = digests(), set(sys.modules)
if how == "record":
    import manifest
    run = manifest.record(config={"lr": 0.1})
    for name, generator in generators.items():
        run.track(name, generator)
    run.log_config({"more": 1})
if how == "spoilt":  # as a recorder would that draws one number from each, and sets a switch
    for name, generator in generators.items():
        if name.startswith("torch"):
            torch.rand(1, generator=generator)
        else:
            getattr(generator, "random_raw", getattr(generator, "random", None))()
    import jinja2
    torch.set_deterministic_debug_mode("warn")
    threading.Thread(target=threading.Event().wait, name="recorder", daemon=True).start()
begun = digests()
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1))
optimizer = torch.optim.Adam(model.parameters())
data = torch.utils.data.TensorDataset(torch.rand(16, 4))
losses = []
for _ in range(2):
    for (inputs,) in torch.utils.data.DataLoader(data, 4, shuffle=True):
        optimizer.zero_grad(); loss = model(inputs).sum(); loss.backward(); optimizer.step()
        losses.append(loss.item().hex())
bits = b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())
switches = [getattr(torch, name)() for name in (
    "get_num_threads", "get_num_interop_threads", "get_default_dtype", "is_grad_enabled",
    "are_deterministic_algorithms_enabled", "get_float32_matmul_precision", "initial_seed",
    "is_anomaly_enabled", "is_warn_always_enabled")]
threads = sorted(thread.name for thread in threading.enumerate())
if how == "record":
    run.finish()
ended, added = digests(), set(sys.modules) - modules
from manifest.settings import capture_settings, capture_slow_settings
print(json.dumps({
    "before": before, "begun": begun, "ended": ended, "losses": losses, "threads": threads,
    "bits": hashlib.sha256(bits).hexdigest(), "drawn later": torch.rand(1).item().hex(),
    "switches": [*map(str, switches), torch.backends.cudnn.benchmark, len(warnings.filters)],
    "types": [torch.optim.Adam.step.__name__, *map(str, type(optimizer).__mro__)],
    "modules": sorted(modules), "added": sorted(added),
    "cuda": torch.cuda.is_initialized(), "settings": capture_settings() | capture_slow_settings(),
    "hooks": [len(model._forward_hooks), len(model[0]._backward_hooks), len(optimizer.__dict__)],
}))
"""
WAYS = ("record", "run")
RUN = [sys.executable, "-c", "from manifest_client.cli.main import main; main()", "run", "--"]

DRIVER = """
#include <stdlib.h>
#define BREAKS(name) int name(void) { abort(); }
BREAKS(cuInit) BREAKS(cuCtxCreate) BREAKS(cuCtxCreate_v2) BREAKS(cuCtxCreate_v3)
BREAKS(cuDevicePrimaryCtxRetain) BREAKS(cuCtxSetCurrent) BREAKS(cuCtxPushCurrent_v2)
BREAKS(cuMemAlloc_v2) BREAKS(cuDeviceGet) BREAKS(cuDeviceGetCount) BREAKS(cuGetProcAddress)
BREAKS(cuGetProcAddress_v2) BREAKS(cuDriverGetVersion)
"""
MANAGEMENT = """
#include <string.h>
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *o, unsigned n) { strncpy(o, "580.95.05", n); return 0; }
int nvmlDeviceGetCount_v2(unsigned *o) { *o = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **o) { *o = o; return 0; }
"""


Facts = dict[str, Any]
Train = Callable[[str], Facts]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the program trains, beside a driver that ends whoever starts its accelerator."""
    folder = tmp_path_factory.mktemp("untouched")
    (folder / "program.py").write_text(PROGRAM)
    libraries = {"libnvidia-ml.so.1": MANAGEMENT}
    if torch.version.cuda is None:  # what is built for it asks the driver by itself
        libraries["libcuda.so.1"] = DRIVER
    for name, source in libraries.items():
        (folder / "driver.c").write_text(source)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", name, "driver.c"], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def train(folder: Path) -> Train:
    """Let the program train, once for each way, and say what it found."""

    @functools.cache
    def train(how: str) -> Facts:
        program = [sys.executable, "program.py", how]
        done = subprocess.run(
            [*RUN, *program] if how == "run" else program,
            cwd=folder,
            env=environ(folder),
            stdout=subprocess.PIPE,
            check=True,
        )
        facts: Facts = json.loads(done.stdout)
        return facts

    return train


def environ(folder: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0", "LD_LIBRARY_PATH": str(folder)}


@pytest.mark.parametrize("how", WAYS)
def test_every_generator_is_where_it_is_alone(how: str, train: Train) -> None:
    alone, recorded = train("alone"), train(how)
    assert len(recorded["before"]) == 8
    for moment in ("before", "begun", "ended", "losses"):
        assert recorded[moment] == alone[moment], moment
    assert recorded["before"] == recorded["begun"], "nothing was drawn at `record()`"


def test_a_number_drawn_in_secret_would_be_seen(train: Train) -> None:
    spoilt = train("spoilt")
    assert [
        name for name, digest in spoilt["before"].items() if spoilt["begun"][name] == digest
    ] == []
    assert spoilt["losses"] != train("alone")["losses"]


@pytest.mark.parametrize("how", WAYS)
def test_a_training_computes_and_leaves_what_it_does_alone(how: str, train: Train) -> None:
    alone, recorded = train("alone"), train(how)
    for what in ("bits", "drawn later", "switches", "types"):
        assert recorded[what] == alone[what], what
    assert train("spoilt")["bits"] != alone["bits"], "other bits would be seen"


@pytest.mark.parametrize("how", WAYS)
def test_every_setting_of_the_catalogue_is_as_it_is_alone(how: str, train: Train) -> None:
    alone, recorded = train("alone")["settings"], train(how)["settings"]
    assert len(alone) > 100
    assert {key for key in alone if recorded.get(key) != alone[key]} == set()
    assert recorded.keys() == alone.keys()


def test_a_changed_setting_would_be_seen(train: Train) -> None:
    alone, spoilt = train("alone")["settings"], train("spoilt")["settings"]
    assert "torch.deterministic.mode" in {key for key in alone if spoilt.get(key) != alone[key]}


@pytest.mark.parametrize("how", WAYS)
def test_nothing_is_imported_but_manifest_and_the_standard_library(how: str, train: Train) -> None:
    assert foreign(train(how), train("alone")) <= {"manifest", "xxhash", "sitecustomize"}


def test_another_import_would_be_seen(train: Train) -> None:
    assert "jinja2" in foreign(train("spoilt"), train("alone"))


def foreign(recorded: Facts, alone: Facts) -> set[str]:
    more = {*recorded["modules"], *recorded["added"]} - {*alone["modules"], *alone["added"]}
    return {name.partition(".")[0] for name in more} - set(sys.stdlib_module_names)


@pytest.mark.parametrize("how", WAYS)
def test_threads_and_hooks_are_those_of_the_program(how: str, train: Train) -> None:
    alone, recorded = train("alone"), train(how)
    assert recorded["threads"] == alone["threads"] == ["MainThread"]
    assert recorded["hooks"] == alone["hooks"]
    assert "recorder" in train("spoilt")["threads"], "another thread would be seen"


def test_the_accelerator_is_described_and_not_started(train: Train, folder: Path) -> None:
    assert [train(how)["cuda"] for how in WAYS] == [False, False]
    for run in run_directories(folder / ".manifest"):
        hardware = run.document()["sections"]["hardware"]
        assert (hardware["gpu.driver"], hardware["gpu.count"]) == ("580.95.05", 1)


@pytest.mark.skipif(torch.version.cuda is not None, reason="PyTorch itself asks the driver")
def test_an_accelerator_that_is_started_would_be_seen(folder: Path) -> None:
    start = [sys.executable, "-c", "import ctypes; ctypes.CDLL('libcuda.so.1').cuInit(0)"]
    done = subprocess.run(start, env=environ(folder), check=False)
    assert done.returncode == -signal.SIGABRT
