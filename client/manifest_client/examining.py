"""Whether this machine can record, keep, deliver and replay: one finding for each thing needed.

Nothing is changed: runs that are tried out are kept in a folder that goes with them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Literal, NamedTuple

from manifest.auditing import audit
from manifest.determinism.switching import CUBLAS, WORKSPACES
from manifest.environment.git import TIMEOUT_SECONDS, Git, GitFailed
from manifest.environment.hardware import capture_accelerators
from manifest.errors import ManifestError
from manifest.findings import is_tagged
from manifest.launching import launch
from manifest.rundir import find_base, run_directories
from manifest_client.connection import identity
from manifest_client.embedded import open_embedded
from manifest_client.problems import ServiceRefused, ServiceUnreachable
from manifest_client.settings import load_settings

State = Literal["good", "warning", "bad"]

_ENOUGH_BYTES: Final = 2**30
_LEAST_BYTES: Final = 100 * 2**20
_DAY_SECONDS: Final = 86_400
_MOST_WARNINGS: Final = 3

_LEFT_OVER: Final = {
    "LD_PRELOAD": "it changes which libraries compute, and no replay sets it",
    "MANIFEST_DENSE": "every run is recorded densely, which is slow",
    "MANIFEST_UNTIL": "every run stops after so many steps",
    "MANIFEST_RUN_DIR": "every program here records into one run",
    "NVIDIA_TF32_OVERRIDE": "it overrules what programs say of TF32",
    "OMP_DYNAMIC": "the load of the machine decides how many threads compute",
    "PYTHONHOME": "another standard library may be loaded",
    "PYTHONOPTIMIZE": "assertions are left out",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "it overrules what programs say of TF32",
}
"""Variables that hardly anyone means to have set in the shell, and what they do."""

_TINY: Final = """\
import torch
torch.manual_seed(0)
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(3):
    model(torch.rand(4, 2)).square().sum().backward()
    optimizer.step()
"""


class Finding(NamedTuple):
    """One thing that was looked at."""

    what: str
    state: State
    found: str
    fix: str = ""


def examine(*, is_running: bool = False) -> Iterator[Finding]:
    """Look at everything that Manifest needs here.

    Args:
        is_running: Record and replay a tiny training too, which takes some seconds.
    """
    checks = (
        _python,
        _path,
        _torch,
        _accelerators,
        _git,
        _folder,
        _space,
        _store,
        _clock,
        _threads,
    )
    for check in (*checks, _variables, _service, _training if is_running else _recording):
        yield from _guarded(check)


def _guarded(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    # What is examined may be broken in ways that nobody thought of: the rest is told all the same.
    try:
        yield from list(check())
    except Exception as error:  # noqa: BLE001
        what = check.__name__.removeprefix("_")
        yield Finding(what, "bad", f"could not be examined: {type(error).__name__}: {error}")


def _python() -> Iterator[Finding]:
    here = f"{sys.version.split()[0]} in {sys.prefix}"
    if sys.platform != "linux":
        yield Finding("python", "bad", f"{here}, on {sys.platform}", "Manifest needs Linux")
    else:
        yield Finding("python", "good", here)


def _path() -> Iterator[Finding]:
    found = shutil.which("python")
    if found is None or Path(found).parent == Path(sys.executable).parent:
        return
    # Asked, since a shim is not beside what it starts.
    asked = subprocess.run(
        [found, "-c", "import sys; print(sys.prefix)"],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    if (there := asked.stdout.strip()) != sys.prefix:
        said = f"`python` starts another: {there or found}, with packages of its own"
        fix = "activate this environment, or leave `python` out: `manifest run -- train.py`"
        yield Finding("PATH", "warning", said, fix)


def _torch() -> Iterator[Finding]:
    try:
        yield Finding("torch", "good", version("torch"))
    except PackageNotFoundError:
        found = "not installed in this Python; programs may run in another"
        yield Finding("torch", "warning", found, "install Manifest where the program runs")


def _accelerators() -> Iterator[Finding]:
    captured = capture_accelerators()
    unread = sorted(key for key, value in captured.items() if is_tagged(value, "$failed"))
    if unread:
        found = f"the driver does not say {', '.join(unread[:_MOST_WARNINGS])}"
        yield Finding("accelerators", "warning", found, "does `nvidia-smi` work?")
        return
    names = [str(value) for key, value in captured.items() if key.endswith(".name")]
    driver = captured.get("gpu.driver")
    said = f"{', '.join(names)}; driver {driver}" if names else "none"
    yield Finding("accelerators", "good", said)
    if names and "gpu.driver" in captured and os.environ.get(CUBLAS) not in WORKSPACES:
        found = f"{CUBLAS} is {os.environ.get(CUBLAS, 'not set')}: products may vary between runs"
        fix = f"`export {CUBLAS}={WORKSPACES[0]}`, or `manifest.determinism.deterministic()`"
        yield Finding("cublas", "warning", found, fix)


def _git() -> Iterator[Finding]:
    found = shutil.which("git")
    if found is None:
        said = "not found, so that a run keeps the files that ran, and no commit"
        yield Finding("git", "warning", said, "install git")
        return
    try:
        told = Git(Path.cwd(), TIMEOUT_SECONDS)("--version").decode().strip()
    except (GitFailed, OSError) as error:
        yield Finding("git", "bad", f"{found} does not work: {error}")
    else:
        yield Finding("git", "good", told.removeprefix("git version "))


def _folder() -> Iterator[Finding]:
    base = find_base()
    there = _nearest(base)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        fix = "choose a folder with MANIFEST_DIR"
        yield Finding("folder", "bad", f"{there} cannot be written to: {error.strerror}", fix)
        return
    count = len(run_directories(base))
    said = f"{count} run{'s' if count != 1 else ''}" if base.is_dir() else "made by the first run"
    yield Finding("folder", "good", f"{base}: {said}")


def _space() -> Iterator[Finding]:
    free = shutil.disk_usage(_nearest(find_base())).free
    state: State = "good" if free >= _ENOUGH_BYTES else "warning" if free >= _LEAST_BYTES else "bad"
    fix = "" if state == "good" else "free some, or choose another disk with MANIFEST_DIR"
    yield Finding("space", state, f"{free / 2**30:.1f} GiB free", fix)


def _store() -> Iterator[Finding]:
    base = find_base()
    if not (base / "runs").is_dir():
        return
    warnings: list[str] = []
    open_embedded(base, warnings.append).close()
    for warning in warnings[:_MOST_WARNINGS]:
        yield Finding("store", "warning", warning)
    if not warnings:
        yield Finding("store", "good", "opens, and holds every run of the folder")


def _clock() -> Iterator[Finding]:
    newest = next(iter(run_directories(find_base())), None)
    # Written when this version was installed, and when the newest run began.
    known = [Path(__file__).stat().st_mtime]
    if newest is not None:
        known.append(int(newest.id[:13].replace("-", ""), 16) / 1000)
    now = time.time()
    if max(known) > now + _DAY_SECONDS:
        found = "behind what was written here before, so that new runs are listed as old ones"
        yield Finding("clock", "bad", found, "set the clock")
    else:
        yield Finding("clock", "good", time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(now)))


def _threads() -> Iterator[Finding]:
    processors = len(os.sched_getaffinity(0))
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given and not all(part.strip().isdigit() for part in given.split(",")):
        fix = "set OMP_NUM_THREADS to a number"
        yield Finding("threads", "bad", f"OMP_NUM_THREADS={given} is no number", fix)
    elif given:
        yield Finding("threads", "good", f"OMP_NUM_THREADS={given}, of {processors} processors")
    else:
        found = f"as many as processors: {processors}; on another machine sums may round otherwise"
        yield Finding("threads", "good", found)


def _variables() -> Iterator[Finding]:
    for name, effect in _LEFT_OVER.items():
        value = os.environ.get(name)
        if value and value.strip().lower() not in ("0", "false"):
            yield Finding(name, "warning", effect, f"`unset {name}`, unless you mean it")


def _service() -> Iterator[Finding]:
    try:
        settings = load_settings()
    except ManifestError as error:
        yield Finding("settings", "bad", str(error))
        return
    if settings.url is None or not settings.is_delivering:
        yield Finding("service", "good", "none set up; runs stay in the folder")
        return
    try:
        known = identity(settings.url, settings.token)
    except ServiceUnreachable as error:
        yield Finding("service", "bad", str(error))
    except ServiceRefused as error:
        yield Finding("service", "bad", str(error), f"`manifest login {settings.url}`")
    else:
        yield Finding("service", "good", f"{settings.url} knows you as {known['name']}")


def _recording() -> Iterator[Finding]:
    with tempfile.TemporaryDirectory(prefix="manifest-doctor-") as folder:
        run = launch([sys.executable, "-c", "pass"], base=Path(folder) / "runs").run
        if run.has_process():
            yield Finding("recording", "good", "a process records itself; `--run` tries a training")
        else:
            yield _not_recorded([str(note["what"]) for note in run.document()["notes"]])


def _training() -> Iterator[Finding]:
    with tempfile.TemporaryDirectory(prefix="manifest-doctor-") as folder:
        script = Path(folder) / "train.py"
        script.write_text(_TINY)
        found = audit([sys.executable, str(script)], base=Path(folder) / "runs")
        state: State = "good" if found.outcome == "reproducible" else "bad"
        yield Finding("replay", state, f"a tiny training: {found.sentence}")


def _not_recorded(reasons: list[str]) -> Finding:
    fix = "does this Python start with -I, -E or -S, or is PYTHONPATH taken away?"
    return Finding("recording", "bad", "; ".join(reasons) or "no process recorded itself", fix)


def _nearest(path: Path) -> Path:
    """The folder that is there already, at or above a path."""
    return next(each for each in (path, *path.parents) if each.is_dir())
