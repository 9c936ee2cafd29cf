"""Signals reach the program, and what it makes of them is what is recorded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from manifest.rundir import run_directories

LAUNCH = (
    "import sys; from pathlib import Path; from manifest.launching import launch;"
    "done = launch([sys.executable, 'program.py'], base=Path('.manifest'));"
    "print(done.exit_code, done.signal, done.was_interrupted)"
)


def signalled(project: Path, program: str, number: int) -> tuple[str, str]:
    """Start `program` under Manifest, wait for its word, send it a signal."""
    (project / "program.py").write_text(program)
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCH], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not (project / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    if number == signal.SIGINT:
        os.killpg(launcher.pid, number)  # as a terminal does
    else:
        launcher.send_signal(number)
    out, _ = launcher.communicate(timeout=60)
    (run,) = run_directories(project / ".manifest")
    return out.strip(), run.document()["status"]


READY = "import pathlib, signal, sys, time\npathlib.Path('ready').touch()\n"


@pytest.mark.parametrize(
    ("program", "number", "said", "status"),
    [
        (READY + "time.sleep(60)\n", signal.SIGTERM, "143 SIGTERM False", "crashed"),
        (READY + "time.sleep(60)\n", signal.SIGINT, "130 SIGINT True", "crashed"),
        (
            "import signal, sys\n"
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n" + READY + "time.sleep(60)\n",
            signal.SIGTERM,
            "5 None False",
            "failed",
        ),
        (
            READY + "try: time.sleep(60)\nexcept KeyboardInterrupt: sys.exit(0)\n",
            signal.SIGINT,
            "0 None True",
            "finished",
        ),
    ],
    ids=["terminated", "interrupted", "own handler", "interrupt survived"],
)
def test_a_signal_ends_the_program_as_it_would_alone(
    project: Path, program: str, number: int, said: str, status: str
) -> None:
    assert signalled(project, program, number) == (said, status)


def test_a_launcher_that_is_killed_leaves_the_program_and_its_run(project: Path) -> None:
    (project / "program.py").write_text(READY + "time.sleep(1)\npathlib.Path('done').touch()\n")
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCH])
    deadline = time.monotonic() + 60
    while not (project / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    launcher.kill()
    launcher.wait()
    (run,) = run_directories(project / ".manifest")
    assert run.document()["status"] == "running"
    while run.is_alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (project / "done").exists()
    assert run.seal()["status"] == "finished"
