"""What a program waits for: the first `record()`, later ones, a loader's iterator, Python's start.

With and without take turns in one process, so that a slow minute of the machine hits both.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

Times = list[float]

FIGURES = {
    "first": "first record(), torch is there (goal: 10 ms), ms",
    "first cpu": "the same, processor time of its thread, ms",
    "warm": "later record() in one process (goal: 3 ms), ms",
    "warm cpu": "the same, processor time of its thread, ms",
    "subprocesses": "processes that record() started in the foreground (goal: 0)",
    "loader": "a loader's iterator, more than without (goal: 5 µs), µs",
    "first loader": "the first iterator of each loader, more than without, µs",
    "start": "start and end of an empty Python, more than without, ms",
    "start cpu": "the same, processor time, ms",
}
WARM_RUNS = 10
ITERATORS = 2_000
LOADERS = 60  # as many as are described
PAUSE_SECONDS = 0.3  # what record() does in the background ends meanwhile


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure in processes of their own and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, prog="foreground")
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    parser.add_argument("--measure", choices=("record", "loader"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure is not None:
        print(json.dumps({"record": recording, "loader": loading}[options.measure]()))
        return
    found: dict[str, Times] = {figure: [] for figure in FIGURES}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds + 1):
            for measured in (*(measured_in(folder, what) for what in ("record", "loader")),
                             starting(folder)):  # fmt: skip
                for figure, times in measured.items():
                    found[figure] += times if number else []  # the first warms up the files
    print(f"\n{options.rounds} rounds, load {os.getloadavg()[0]:.1f}\n")
    print(f"{'':<62}{'median':>9}{'min':>9}{'max':>9}")
    for figure, times in found.items():
        values = (statistics.median(times), min(times), max(times))
        print(f"{FIGURES[figure]:<62}" + "".join(f"{value:>9,.2f}" for value in values))


def measured_in(folder: str, what: str) -> dict[str, Times]:
    """What a process of its own measures."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure", what],
        cwd=folder,
        env=bare_environment(),
        stdout=subprocess.PIPE,
        check=True,
    )
    found: dict[str, Times] = json.loads(done.stdout)
    return found


def bare_environment() -> dict[str, str]:
    """Nothing of whoever measures; least of all that no bytecode be kept."""
    foreign = ("PYTHON", "MANIFEST_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def recording() -> dict[str, Times]:
    """Record, end, and record again, in this process."""
    import torch  # noqa: F401

    import manifest

    started: list[object] = []
    is_watched = False
    main_thread = threading.get_ident()

    def audit(event: str, _: object) -> None:
        is_here = is_watched and threading.get_ident() == main_thread
        if is_here and event in ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.system"):
            started.append(event)

    sys.addaudithook(audit)
    times: Times = []
    cpu: Times = []
    for _ in range(1 + WARM_RUNS):
        is_watched = True
        start_ns, cpu_start_ns = time.perf_counter_ns(), time.thread_time_ns()
        run = manifest.record(config={"lr": 0.1})
        cpu.append((time.thread_time_ns() - cpu_start_ns) / 1e6)
        times.append((time.perf_counter_ns() - start_ns) / 1e6)
        is_watched = False
        time.sleep(PAUSE_SECONDS)
        run.finish()
    return {
        "first": times[:1],
        "first cpu": cpu[:1],
        "warm": times[1:],
        "warm cpu": cpu[1:],
        "subprocesses": [float(len(started))],
    }


def loading() -> dict[str, Times]:
    """Make iterators of loaders with and without anybody who watches, in turns."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    import manifest
    from manifest.pytorch import loaders

    run = manifest.record()
    time.sleep(PAUSE_SECONDS)
    dataset = TensorDataset(torch.zeros(64, 1))
    watching = loaders._watching  # noqa: SLF001 -- as where a run ends and another begins

    def differences(iterate: Callable[[int], object], count: int) -> Times:
        times: dict[bool, Times] = {False: [], True: []}
        for number in range(count):
            for is_watched in (False, True):
                loaders._watching = watching if is_watched else None  # noqa: SLF001
                start_ns = time.perf_counter_ns()
                iterate(number)
                times[is_watched].append((time.perf_counter_ns() - start_ns) / 1e3)
        return [statistics.median(times[True]) - statistics.median(times[False])]

    each = [DataLoader(dataset, 8, shuffle=True) for _ in range(LOADERS)]
    first = differences(lambda number: iter(each[number]), LOADERS)
    again = differences(lambda _: iter(each[0]), ITERATORS)
    loaders._watching = watching  # noqa: SLF001
    run.finish()
    return {"first loader": first, "loader": again}


def starting(folder: str) -> dict[str, Times]:
    """Start Python for nothing, and let it record itself as a child of a recorded program does."""
    from manifest.entropy import new_master
    from manifest.identity import new_run_id
    from manifest.inheriting import variables_for
    from manifest.origin import RUN, Origin, write_origin
    from manifest.rundir import RunDirectory

    run = RunDirectory.create(Path(folder) / ".manifest", new_run_id())
    _, journal = run.claim("run")
    command = [sys.executable, "-c", "pass"]
    origin = Origin(
        mode=RUN,
        command=command,
        executable=sys.executable,
        folder=Path(folder),
        entropy=new_master(),
        hash_seed="0",
    )
    write_origin(journal, run, origin)
    journal.close()
    alone = bare_environment() | {"PYTHONHASHSEED": "0"}
    walls, cpus = [], []
    for environ in (alone, alone | variables_for(run, "main.x0", alone)):
        cpu_before_ms, start_ns = cpu_of_children_ms(), time.perf_counter_ns()
        subprocess.run(command, cwd=folder, env=environ, check=True)
        walls.append((time.perf_counter_ns() - start_ns) / 1e6)
        cpus.append(cpu_of_children_ms() - cpu_before_ms)
    return {"start": [walls[1] - walls[0]], "start cpu": [cpus[1] - cpus[0]]}


def cpu_of_children_ms() -> float:
    """Processor time of the processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (usage.ru_utime + usage.ru_stime) * 1e3


if __name__ == "__main__":
    main()
