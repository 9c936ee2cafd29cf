"""Whatever goes wrong while recording, the program goes on and ends as it does alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifest.launching import launch
from manifest.rundir import run_directories

Script = Callable[[str, str], Path]
Both = Callable[..., Any]

PROBES = {
    "interpreter": "manifest.environment.interpreter.capture_interpreter",
    "variables": "manifest.environment.variables.capture_variables",
    "packages": "manifest.environment.packages.capture_packages",
    "hardware": "manifest.environment.hardware.capture_hardware",
    "launcher": "manifest.environment.launcher.capture_launcher",
    "settings": "manifest.settings.capture_settings",
    "slow settings": "manifest.settings.capture_slow_settings",
    "inputs": "manifest.filefacts.describe",
    "source": "manifest.rundir.RunDirectory.put_blob",
    "look-ups": "manifest.environment.asked.is_kept",
    "places": "manifest.places.is_within",
}

SABOTAGE = """
import importlib, sys, time
def sabotage(path, wrong):
    name, parts = path, []
    while True:
        try:
            thing = importlib.import_module(name)
            break
        except ImportError:
            name, _, part = name.rpartition(".")
            parts.insert(0, part)
    for part in parts[:-1]:
        thing = getattr(thing, part)
    setattr(thing, parts[-1], wrong)
"""

ORDINARY = """
import os, json
print(os.environ.get("RATE"), json.load(open("config.json")))
def f(): raise ValueError("the data ran out")
f()
"""


PATIENCE = "import manifest.recorder; manifest.recorder._FOREGROUND_TIMEOUT_SECONDS = {}"


@pytest.fixture
def customized(script: Script, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Do something where the program is recorded, before its first line."""

    def customize(*lines: str) -> None:
        if_recorded = "".join(["if 'manifest' in sys.modules:\n", *(f"    {x}\n" for x in lines)])
        folder = script("customized/sitecustomize.py", SABOTAGE + if_recorded).parent
        monkeypatch.setenv("PYTHONPATH", str(folder))

    return customize


@pytest.fixture
def sabotaged(script: Script, customized: Callable[..., None]) -> Callable[..., None]:
    """Replace a function of ours, in the program alone, by another."""

    def sabotage(path: str, wrong: str, *lines: str) -> None:
        customized(*lines, f"sabotage({path!r}, {wrong})")
        script("config.json", '{"lr": 0.1}')
        script("program.py", ORDINARY)

    return sabotage


@pytest.mark.parametrize("probe", PROBES)
def test_a_probe_that_raises_costs_a_note_and_nothing_else(
    probe: str, both: Both, sabotaged: Callable[..., None]
) -> None:
    sabotaged(PROBES[probe], "lambda *_, **__: 1 / 0")
    pair = both("program.py")
    assert pair.recorded == pair.alone
    document = pair.run.document()
    assert (document["status"], document["error"]) == ("failed", "ValueError: the data ran out")
    noted = any("ZeroDivisionError" in note["what"] for note in document["notes"])
    assert noted or probe in ("look-ups", "places"), document["notes"]
    assert document["sections"]["seeds"], "what does not fail is recorded"


def test_where_every_probe_raises_a_run_of_notes_is_left(
    script: Script, plainly: Callable[..., subprocess.CompletedProcess[str]], project: Path
) -> None:
    probes = [path for name, path in PROBES.items() if name != "source"]  # without it is no run
    breaking = [f"sabotage({path!r}, lambda *_, **__: 1 / 0)\n" for path in probes]
    recording = "import manifest, runpy; manifest.record(); runpy.run_path('program.py')\n"
    script("recorded.py", "".join([SABOTAGE, *breaking, recording]))
    script("config.json", '{"lr": 0.1}')
    script("program.py", ORDINARY)
    alone, recorded = plainly("program.py"), plainly("recorded.py")
    assert (recorded.stdout, recorded.returncode) == (alone.stdout, alone.returncode)
    assert recorded.stderr.splitlines()[-1] == "ValueError: the data ran out"
    assert "manifest: " not in recorded.stderr
    (run,) = run_directories(project / ".manifest")
    document = run.document()
    assert document["error"] == "ValueError: the data ran out"
    assert {"environment", "hardware", "packages", "settings"} <= {
        note["where"] for note in document["notes"]
    }


def test_a_fault_of_our_own_costs_a_sentence_not_the_program(
    script: Script, plainly: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    breaking = f"{SABOTAGE}sabotage({PROBES['source']!r}, lambda *_, **__: 1 / 0)\n"
    script("program.py", f"{breaking}import manifest\nprint(manifest.record())\n")
    done = plainly("program.py")
    assert (done.stdout, done.returncode) == ("<Run not recorded>\n", 0)
    assert done.stderr.count("manifest: this run is not recorded: ZeroDivisionError") == 1


@pytest.mark.parametrize("probe", ["packages", "hardware", "inputs"])
def test_a_probe_that_hangs_is_left_behind(
    probe: str, both: Both, sabotaged: Callable[..., None]
) -> None:
    sabotaged(PROBES[probe], "lambda *_, **__: time.sleep(600)", PATIENCE.format(0.2))
    pair = both("program.py")
    assert pair.recorded == pair.alone
    document = pair.run.document()
    assert any("not done within 0.2 seconds" in note["what"] for note in document["notes"])
    assert document["error"] == "ValueError: the data ran out"


def test_a_disk_that_fills_up_costs_one_line(both: Both, script: Script) -> None:
    script(
        "program.py",
        "import os, resource\n"
        "if 'MANIFEST_RUN_DIR' in os.environ:\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))\n"
        "for i in range(200): os.environ.get('ASKED_FOR_%03d' % i)\n"
        "print('trained')\n",
    )
    pair = both("program.py")
    assert (pair.recorded.out, pair.recorded.code) == (pair.alone.out, pair.alone.code)
    (line,) = pair.recorded.err.splitlines()
    assert line.startswith("manifest: recording stopped, the program goes on")
    document = pair.run.document()
    assert document["status"] == "finished"
    assert "asked.ASKED_FOR_000" in document["sections"]["environment"]


def test_a_manifest_that_cannot_be_written_does_not_hide_how_the_program_ended(
    script: Script, base: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script(
        "program.py",
        "import os, pathlib, sys\n"
        "run = pathlib.Path(os.environ['MANIFEST_RUN_DIR'])\n"
        "(run / 'manifest.json').mkdir()\n"
        "sys.exit(9)\n",
    )
    launched = launch([sys.executable, "program.py"], base=base)
    assert launched.exit_code == 9
    assert capfd.readouterr().err.count("the program ended") == 1


@pytest.mark.parametrize("home", ["missing", "a file"])
def test_a_home_that_cannot_be_written_is_not_needed(
    home: str, both: Both, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / home))
    script("program.py", "print('trained')\n")
    pair = both("program.py")
    assert pair.recorded == pair.alone
    assert pair.run.document()["notes"] == []
    assert not (tmp_path / "missing").exists()


def test_thousands_of_files_are_read(
    both: Both, script: Script, project: Path, customized: Callable[..., None]
) -> None:
    (project / "data").mkdir()
    customized(PATIENCE.format(600))  # the end of a run waits for so long only where it must
    script(
        "program.py",
        "for i in range(5500): open(f'data/{i}', 'w').write(str(i))\n"
        "files = [open(f'data/{i}') for i in range(900)]\n"
        "print(sum(int(open(f'data/{i}').read()) for i in range(5500)), len(files))\n",
    )
    pair = both("-W", "ignore", "program.py")
    assert pair.recorded == pair.alone
    sections = pair.run.document()["sections"]
    assert len(sections["inputs"]) == len(sections["outputs"]) == 5000


def test_a_pipe_that_is_read_is_not_read_again(both: Both, script: Script) -> None:
    script(
        "program.py",
        "import os, subprocess, sys\n"
        "os.path.exists('pipe') or os.mkfifo('pipe')\n"
        "write = 'open(\\'pipe\\', \\'w\\').write(\\'x\\' * 9)'\n"
        "writer = subprocess.Popen([sys.executable, '-c', write])\n"
        "print(open('pipe').read(), writer.wait())\n",
    )
    pair = both("-W", "ignore", "program.py")
    assert pair.recorded == pair.alone


def test_a_signal_handler_may_come_at_any_moment(both: Both, script: Script) -> None:
    script("helper.py", "SIZE = 3\n")
    script(
        "program.py",
        "import faulthandler, importlib, os, random, signal, sys, time\n"
        "faulthandler.dump_traceback_later(60, exit=True)\n"
        "count = 0\n"
        "def handle(*_):\n"
        "    global count\n"
        "    count += 1\n"
        "    os.environ.get('FROM_HANDLER_%d' % (count % 100)); open(__file__).close()\n"
        "    random.Random(); sys.modules.pop('helper', None); importlib.import_module('helper')\n"
        "    signal.setitimer(signal.ITIMER_REAL, 0.0003)\n"
        "signal.signal(signal.SIGALRM, handle)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.0003)\n"
        "end = time.monotonic() + 1\n"
        "i = 0\n"
        "while time.monotonic() < end and (i := i + 1):\n"
        "    os.environ.get('FROM_PROGRAM_%d' % (i % 100)); random.Random()\n"
        "    exec(compile('pass', f'made_{i}.py', 'exec'))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "print(count > 20)\n",
    )
    pair = both("program.py")
    assert pair.recorded == pair.alone
    document = pair.run.document()
    assert document["processes"]["main"]["ended_at"] is not None, "every entry can be read"
    asked = document["sections"]["environment"].keys()
    assert {f"asked.FROM_PROGRAM_{i}" for i in range(100)} <= asked


FORKING = """
import os, sys, time
import manifest
manifest.record()
children = []
for i in range(40):
    pid = os.fork()
    if pid == 0:
        # All that a capture imports, and what it may hold.
        import ctypes, json, resource, subprocess
        import manifest.environment.hardware, manifest.environment.source, manifest.surveying
        os.environ.get("IN_CHILD"); open(__file__).close()
        os._exit(i)
    children.append(pid)
    time.sleep(0.005)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
print(codes == list(range(40)))
"""


def test_a_fork_amid_a_capture_in_the_background_is_free_of_its_locks(
    script: Script, project: Path
) -> None:
    script("program.py", FORKING)
    done = subprocess.run(
        [sys.executable, "program.py"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("True\n", 0)
    # From 3.12 on, Python warns of a fork beside any thread.
    of_python = ("DeprecationWarning: This process", "  pid = os.fork()")
    said = [line for line in done.stderr.splitlines() if not any(map(line.__contains__, of_python))]
    assert said == []


def test_a_real_time_signal_that_ends_the_program_is_told(both: Both, script: Script) -> None:
    script("program.py", "import os\nos.kill(os.getpid(), 40)\n")
    pair = both("program.py")
    assert pair.recorded == pair.alone
    assert pair.run.document()["exit_signal"] == "SIG40"
