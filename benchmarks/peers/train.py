"""The training that every tool records, always the same tiny one, timed from inside.

``train.py TOOL STEPS OUT`` runs in the environment of the tool, in a process of its own, and
writes what it measured to OUT. A copy of it is the program of the project that is recorded.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Log = Callable[[int, Tensor], None]

CONFIG = {"lr": 0.01, "batch_size": 8, "hidden": 32, "optimizer": "sgd", "dataset": "noise"}
WARM_UP_STEPS = 50
LOADING_SECONDS = 0.5


def main() -> None:
    """Import, start, train, end, each timed, and train once more with no tool."""
    measured: dict[str, Any] = {"begun_ns": time.monotonic_ns()}
    adapter, steps, out = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    started = now()
    import torch

    measured["import torch"] = since(started)
    torch.set_num_threads(1)
    tool = importlib.import_module(adapter)
    started = now()
    tool.load()
    measured["import"] = since(started)

    def train(log: Log) -> None:
        nonlocal started
        measured["start"] = since(started)
        # A program loads its data now; what a tool does in the background may end meanwhile.
        time.sleep(LOADING_SECONDS)
        training = training_of(log)
        measured["with"] = timed(training, steps)
        started = now()

    started = now()
    tool.record(CONFIG, train)
    measured["end"] = since(started)
    measured["without"] = timed(training_of(lambda step, loss: None), steps)
    measured["ended_ns"] = time.monotonic_ns()
    out.write_text(json.dumps(measured))


def training_of(log: Log) -> Callable[[int], None]:
    """One step of training a tiny MLP, with its loss logged."""
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=CONFIG["lr"])  # type: ignore[arg-type]
    inputs, targets = torch.randn(8, 16), torch.randn(8, 1)

    def step(number: int) -> None:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        log(number, loss)

    return step


def timed(step: Callable[[int], None], steps: int) -> dict[str, float]:
    """What a step takes: half of them at most `p50_us`; `cpu_us` is the training thread's alone."""
    for number in range(WARM_UP_STEPS):
        step(number)
    times_ns = []
    cpu_ns = time.thread_time_ns()
    for number in range(WARM_UP_STEPS, WARM_UP_STEPS + steps):
        start_ns = time.perf_counter_ns()
        step(number)
        times_ns.append(time.perf_counter_ns() - start_ns)
    cpu_ns = time.thread_time_ns() - cpu_ns
    return {
        "p50_us": statistics.median(times_ns) / 1e3,
        "mean_us": statistics.fmean(times_ns) / 1e3,
        "cpu_us": cpu_ns / steps / 1e3,
    }


def now() -> tuple[float, float]:
    """The time on the wall, and the processor time of all threads."""
    return time.perf_counter(), time.process_time()


def since(started: tuple[float, float]) -> dict[str, float]:
    """Milliseconds of both since then."""
    wall, cpu = now()
    return {"ms": (wall - started[0]) * 1e3, "cpu_ms": (cpu - started[1]) * 1e3}


if __name__ == "__main__":
    main()
