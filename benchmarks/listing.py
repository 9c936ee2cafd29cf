"""How long `manifest ls` takes in a folder with many runs: `--help` tells the options.

The runs are real run directories, made once through the same code that records them. Each time is
that of a process of its own, from its start to its end, with the bytecode of the modules in place.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from manifest.canonical import Json
from manifest.catalogue import settings_of
from manifest.identity import new_run_id
from manifest.origin import RUN, Origin, write_origin
from manifest.rundir import RunDirectory

LS = (Path(sys.executable).with_name("manifest"), "ls")
SHOW = (Path(sys.executable).with_name("manifest"), "show", "@latest")
FOREIGN = ("PYTHON", "MANIFEST_")


class Took(NamedTuple):
    """What one process took, in seconds."""

    wall: float
    cpu: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the runs, time the command, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, prog="listing")
    parser.add_argument("--runs", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="manifest-listing-") as name:
        project = Path(name)
        base = project / ".manifest"
        make_runs(base, project, options.runs)
        rows = measured(base, project, options.rounds)
        size = bytes_in(base / "runs") / options.runs
    print(f"\n{options.runs} runs of {size / 1e3:.0f} KB each; {machine()}\n")
    print(f"{'seconds':<52}{'median':>9}{'min':>9}{'max':>9}{'CPU':>9}")
    for what, each in rows.items():
        walls = [took.wall for took in each]
        numbers = [statistics.median(walls), min(walls), max(walls)]
        numbers.append(statistics.median(took.cpu for took in each))
        print(f"  {what:<50}" + "".join(f"{number:>9.2f}" for number in numbers))
    print("\nMedians of all rounds. CPU is user and system time. Goal: below 1 s.")


def measured(base: Path, project: Path, rounds: int) -> dict[str, list[Took]]:
    """Every way in which a user meets the command."""
    times(LS, project, 1)
    rows = {"manifest ls, nothing indexed yet": times(LS, project, rounds)}
    assert not (base / "store.db").exists()
    rows["manifest show @latest, which indexes all"] = times(SHOW, project, 1)
    rows["manifest ls, all indexed"] = times(LS, project, rounds)
    return rows


def make_runs(base: Path, project: Path, count: int) -> None:
    """Record runs that end at once."""
    sections = typical_sections()
    for number in range(count):
        run = RunDirectory.create(base, new_run_id())
        _, journal = run.claim("run")
        origin = Origin(
            mode=RUN,
            command=["python", "train.py", "--lr", f"{number / count:.4f}"],
            executable=sys.executable,
            folder=project,
            entropy=number.to_bytes(32, "big"),
            hash_seed=str(number),
        )
        write_origin(journal, run, origin)
        for name, values in sections.items():
            journal.section(name, values)
        journal.section("config", {"lr": number / count})
        journal.append("exit", code=0, signal=None)
        journal.close()
        run.write_manifest()


def typical_sections() -> dict[str, dict[str, Json]]:
    """As many keys as the run of a small training has."""
    return {
        "settings": {setting.key: True for setting in settings_of("process")},
        "packages": {f"package-{number}": f"1.{number}.0" for number in range(60)},
        "environment": {f"env.TORCH_{number}": {"$absent": True} for number in range(50)},
        "hardware": {"cpu.count": 8, "cpu.model": "a processor", "memory_bytes": 2**35},
        "inputs": {
            f"data/part-{number}.csv": {"size": 2**20, "mtime_us": 2**50, "digest": "xxh3:0" * 6}
            for number in range(10)
        },
    }


def times(command: Sequence[Path | str], folder: Path, rounds: int) -> list[Took]:
    """What a command took each time."""
    environ = {name: text for name, text in os.environ.items() if not name.startswith(FOREIGN)}
    took = []
    for _ in range(rounds):
        cpu_before, before = cpu_of_children(), time.perf_counter()
        subprocess.run(command, cwd=folder, env=environ, stdout=subprocess.DEVNULL, check=True)
        took.append(Took(time.perf_counter() - before, cpu_of_children() - cpu_before))
    return took


def cpu_of_children() -> float:
    """Processor time of the processes that have ended, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def bytes_in(folder: Path) -> int:
    """The size of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def machine() -> str:
    """Where this was measured."""
    load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    return f"{os.cpu_count()} cores, load {load}, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
