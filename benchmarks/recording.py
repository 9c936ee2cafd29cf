"""What recording costs a program that trains, side by side with peers: `--help` tells the options.

Each measurement is a process of its own; the tools take turns, A B C A B C, so that a slow minute
of the machine hits all of them. The peers are installed here, once, pinned, each into a throw-away
environment that shares the project's torch. While it measures nothing reaches a network.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

PEERS = Path(__file__).parent / "peers"
CACHE = Path.home() / ".cache" / "manifest-benchmarks"
PROCESS_TIMEOUT_SECONDS = 120
NOWHERE = "http://127.0.0.1:9"  # where nobody listens
FOREIGN = ("PYTHON", "MANIFEST_", "MLFLOW_", "WANDB_", "SACRED_", "GIT_", "VIRTUAL_ENV", "XDG_")

Measured = dict[str, Any]


@dataclass(frozen=True)
class Tool:
    """One way to record the training in ``peers/train.py``."""

    name: str
    adapter: str
    package: str | None = None
    """What ``requirements-….txt`` installs; None runs in the environment of the project."""
    variables: Mapping[str, str] = field(default_factory=dict)
    is_launched: bool = False


NOTHING = Tool("nothing", "nothing")
OURS = Tool("manifest.record()", "ours")
MLFLOW = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_FILE_STORE": "true"}
TOOLS = (
    NOTHING,
    OURS,
    Tool("manifest run", "nothing", is_launched=True),
    Tool("Sacred, files", "to_sacred", "sacred"),
    Tool("W&B, offline", "to_wandb", "wandb", {"WANDB_ERROR_REPORTING": "false"}),
    Tool("MLflow, files", "to_mlflow", "mlflow", MLFLOW | {"MLFLOW_TRACKING_URI": "mlruns"}),
    Tool(
        "MLflow, SQLite",
        "to_mlflow",
        "mlflow",
        MLFLOW | {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"},
    ),
)

FIGURES = {
    "import": "import, torch is there (goal: 100 ms), ms",
    "start": "start of a run (goal: 10 ms), ms",
    "step": "each step (goal: 50 µs), µs",
    "end": "end of a run, ms",
    "disk": "on disk, KB",
    "whole": "whole program, more than with nothing, ms",
}
NOTES = """\
Medians. CPU is processor time: of a step, of the training thread alone; of the whole program, of
all processes that it waits for. A step is half of all steps' cost at most. Peers log the loss of
each step, as their users do; ours fingerprints batch, loss, generators, gradients and parameters by
itself. `manifest run` starts before the program, so its start, step and end are differences to
`nothing` in the same round; the differences of `nothing` to its own median show what is noise."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Install what is missing, measure in turns, print the tables."""
    options = parsed(arguments)
    chosen = [tool for tool in TOOLS if is_wanted(tool, options.only)]
    pythons = {tool.name: python_of(tool, options.cache) for tool in chosen}
    tools = [tool for tool in chosen if pythons[tool.name] is not None]
    with tempfile.TemporaryDirectory(dir=options.cache, prefix="work-") as folder:
        bench = Bench(Path(folder), pythons, steps=options.steps)
        rounds = bench.rounds(tools, at_most=options.rounds, minutes=options.minutes)
    found = {tool.name: costs(tool, rounds) for tool in tools}
    print(f"\n{machine()}\n{len(rounds)} rounds, {options.steps} steps in each\n")
    for figure in FIGURES:
        print("\n".join(table(figure, found)), end="\n\n")
    print(NOTES)
    if options.out is not None:
        report = {"machine": machine(), "steps": options.steps, "costs": found, "rounds": rounds}
        options.out.write_text(json.dumps(report, indent=1) + "\n")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, prog="recording")
    parser.add_argument("--rounds", type=int, default=15, help="at most (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=4.5, help="no round is begun that would "
                        "end later, installation aside (default: %(default)s)")  # fmt: skip
    parser.add_argument("--steps", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="tools whose name holds one")
    parser.add_argument("--cache", type=Path, default=CACHE, help="default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write everything as JSON")
    options = parser.parse_args(arguments)
    options.cache = options.cache.absolute()
    options.cache.mkdir(parents=True, exist_ok=True)
    return options


def is_wanted(tool: Tool, only: Sequence[str] | None) -> bool:
    """Whether to measure it; what the others are compared with always is."""
    if only is None or tool in (NOTHING, OURS):
        return True
    return any(part.lower() in tool.name.lower() for part in only)


def python_of(tool: Tool, cache: Path) -> Path | None:
    """The interpreter of the environment of a tool; None if it cannot be installed."""
    if tool.package is None:
        return Path(sys.executable)
    requirements = PEERS / f"requirements-{tool.package}.txt"
    kind = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:8]
    folder = cache / f"{tool.package}-{kind}"
    python = folder / "bin" / "python"
    if not (folder / "is-complete").exists() and not is_installed(requirements, folder, python):
        print(f"{tool.name} is left out: it cannot be installed, see above", file=sys.stderr)
        return None
    share_torch(folder)
    return python


def is_installed(requirements: Path, folder: Path, python: Path) -> bool:
    """Make an environment and install into it, saying whether that went well."""
    print(f"installing {requirements.name} into {folder}", file=sys.stderr)
    venv.create(folder, clear=True, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    installed = subprocess.run(
        [*pip, "--requirement", str(requirements)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if installed.returncode:
        print(installed.stdout[-4000:], file=sys.stderr)
        return False
    (folder / "is-complete").touch()
    return True


def share_torch(folder: Path) -> None:
    """Let an environment see the packages of this one, after its own."""
    here, there = (
        Path(base) / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
        for base in (sys.prefix, folder)
    )
    (there / "zz-shared.pth").write_text(f"{here}\n")


class Bench:
    """A project under git for each tool, and the processes that train there."""

    def __init__(self, folder: Path, pythons: Mapping[str, Path | None], *, steps: int) -> None:
        self._folder = folder
        self._pythons = pythons
        self._steps = steps
        (folder / "home").mkdir()

    def rounds(
        self, tools: Sequence[Tool], *, at_most: int, minutes: float
    ) -> list[dict[str, Measured]]:
        """What each tool's process measured, round by round; a first round warms up the caches."""
        begun = time.monotonic()
        rounds: list[dict[str, Measured]] = []
        longest = 0.0
        while len(rounds) <= at_most:
            started = time.monotonic()
            if rounds and started + longest - begun > minutes * 60:
                break
            rounds.append({tool.name: self._measured(tool) for tool in tools})
            took = time.monotonic() - started
            longest = max(longest, took) if len(rounds) > 1 else 0.0  # warming up takes longer
            print(f"round {len(rounds) - 1}: {took:.0f} s", file=sys.stderr, flush=True)
        if len(rounds) < 2:
            raise SystemExit(
                f"no round but the warm-up fits into {minutes} minutes: give --minutes"
            )
        return rounds[1:]

    def _measured(self, tool: Tool) -> Measured:
        project, out = self._project(tool), self._folder / "measured.json"
        out.unlink(missing_ok=True)
        command = [*self._python(tool), "train.py", tool.adapter, str(self._steps), out]
        bytes_before, cpu_before = bytes_in(project), cpu_of_children_ms()
        started_ns = time.monotonic_ns()
        done = subprocess.run(
            command,
            cwd=project,
            env=self._environment(tool),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PROCESS_TIMEOUT_SECONDS,
            check=False,
        )
        ended_ns = time.monotonic_ns()
        if done.returncode or not out.exists():
            raise SystemExit(f"{tool.name} failed:\n{done.stdout.decode(errors='replace')[-4000:]}")
        measured: Measured = json.loads(out.read_bytes())
        return measured | {
            "launch_ms": (measured["begun_ns"] - started_ns) / 1e6,
            "exit_ms": (ended_ns - measured["ended_ns"]) / 1e6,
            "whole_ms": (ended_ns - started_ns) / 1e6,
            "whole_cpu_ms": cpu_of_children_ms() - cpu_before,
            "bytes": bytes_in(project) - bytes_before,
        }

    def _project(self, tool: Tool) -> Path:
        project = self._folder / tool.name
        if project.exists():
            return project
        shutil.copytree(PEERS, project, ignore=shutil.ignore_patterns("*.txt", "__pycache__"))
        (project / ".gitignore").write_text("__pycache__/\nmlflow.db\nmlruns/\nruns/\nwandb/\n")
        author = ["-c", "user.name=Benchmark", "-c", "user.email=benchmark@example.org"]
        for command in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "Train"]):
            subprocess.run(["git", *command], cwd=project, check=True)
        return project

    def _python(self, tool: Tool) -> list[Path | str]:
        python = self._pythons[tool.name]
        assert python is not None
        if not tool.is_launched:
            return [python]
        return [python.with_name("manifest"), "run", "--", python]

    def _environment(self, tool: Tool) -> dict[str, str]:
        # Nothing of whoever measures: his settings, his cached bytecode switched off, his accounts.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), NOWHERE)
        home = {"HOME": str(self._folder / "home"), "DO_NOT_TRACK": "true"}
        return kept | nowhere | home | dict(tool.variables)


def bytes_in(folder: Path) -> int:
    """The size of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def cpu_of_children_ms() -> float:
    """Processor time of the processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (usage.ru_utime + usage.ru_stime) * 1e3


def costs(tool: Tool, rounds: Sequence[dict[str, Measured]]) -> dict[str, list[float]]:
    """Every figure of a tool in every round."""
    each = [measured[tool.name] for measured in rounds]
    nothing = [measured[NOTHING.name] for measured in rounds]

    def more(*keys: str) -> list[float]:
        usual = [at(measured, keys) for measured in nothing]
        if tool == NOTHING:  # how far it is from itself
            usual = [statistics.median(usual)] * len(usual)
        return [at(m, keys) - without for m, without in zip(each, usual, strict=True)]

    found = {
        "disk": [measured["bytes"] / 1e3 for measured in each],
        "whole": more("whole_ms"),
        "whole cpu": more("whole_cpu_ms"),
    }
    if tool.is_launched or tool == NOTHING:
        return found | {
            "start": more("launch_ms"),
            "step": more("with", "p50_us"),
            "step cpu": more("with", "cpu_us"),
            "end": more("exit_ms"),
        }
    for figure in ("import", "start", "end"):
        found[figure] = [measured[figure]["ms"] for measured in each]
        found[f"{figure} cpu"] = [measured[figure]["cpu_ms"] for measured in each]
    for figure, key in (("step", "p50_us"), ("step cpu", "cpu_us")):
        found[figure] = [measured["with"][key] - measured["without"][key] for measured in each]
    return found


def at(measured: Measured, keys: Sequence[str]) -> float:
    """A number in the nest."""
    found: Any = measured
    for key in keys:
        found = found[key]
    return float(found)


def table(figure: str, found: Mapping[str, Mapping[str, list[float]]]) -> list[str]:
    """The lines of one figure."""
    ours = statistics.median(found[OURS.name][figure])
    lines = [f"{FIGURES[figure]:<46}{'median':>9}{'min':>9}{'max':>9}{'CPU':>9}{'to ours':>9}"]
    for name, figures in found.items():
        if figure not in figures:
            continue
        values, cpu = figures[figure], figures.get(f"{figure} cpu")
        median = statistics.median(values)
        columns = [f"{value:,.1f}" for value in (median, min(values), max(values))]
        columns.append(f"{statistics.median(cpu):,.1f}" if cpu else "")
        columns.append(f"{median / ours:,.1f}" if name != NOTHING.name and ours > 0 else "")
        lines.append(f"  {name:<44}" + "".join(f"{column:>9}" for column in columns).rstrip())
    return lines


def machine() -> str:
    """Where this was measured, and with what."""
    load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    return (
        f"{os.cpu_count()} cores, load {load}, Python {platform.python_version()}, "
        f"torch {version('torch')}, {platform.platform()}"
    )


if __name__ == "__main__":
    main()
