"""Where a disk is full, a folder gone or a clock mad, the program goes on as it does alone.

Each program runs three times: alone, with `record()` before its first line, and under
`manifest run`. It must print the same and end the same way; Manifest may say a sentence.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from manifest.rundir import RunDirectory, run_directories

Script = Callable[[str, str], Path]
Check = Callable[..., list[RunDirectory]]

MANIFEST = [sys.executable, "-c", "from manifest_client.cli.main import main; main()"]
LAUNCH = (
    "import sys; from pathlib import Path; from manifest.launching import launch;"
    "raise SystemExit(launch(sys.argv[1:], base=Path('.manifest')).exit_code)"
)
RECORDED = "import manifest, runpy; manifest.record(); runpy.run_path('program.py')"
WAYS = {
    "alone": [sys.executable, "program.py"],
    "record": [sys.executable, "-c", RECORDED],
    "run": [sys.executable, "-c", LAUNCH, sys.executable, "program.py"],
}


@pytest.fixture
def check(project: Path, script: Script) -> Check:
    """Run a program in each way, and compare; gives the runs that were recorded.

    `around` is the start of a command that runs the rest in a place of its own.
    """

    def check(
        source: str,
        *,
        around: Sequence[str] = (),
        ways: Sequence[str] = ("record", "run"),
        complains: bool = False,
    ) -> list[RunDirectory]:
        script("program.py", source)
        ended = {
            way: subprocess.run(
                [*around, *WAYS[way]], capture_output=True, text=True, check=False, timeout=120
            )
            for way in ("alone", *ways)
        }
        alone = ended.pop("alone")
        for way, done in ended.items():
            found = (done.stdout, done.returncode)
            assert found == (alone.stdout, alone.returncode), (way, done.stderr)
            lines = done.stderr.splitlines()
            ours = [line for line in lines if line.startswith("manifest: ")]
            assert [line for line in lines if line not in ours] == alone.stderr.splitlines(), way
            assert bool(ours) == complains, (way, ours)
        return run_directories(project / ".manifest")

    return check


@pytest.fixture(scope="session")
def own_mounts() -> list[str]:
    """The start of a command that may mount what it likes, unseen by others."""
    enter = ["unshare", "--map-root-user", "--mount"]
    tried = subprocess.run([*enter, "mount", "-t", "tmpfs", "t", "/mnt"], check=False)
    if tried.returncode:
        pytest.skip("this system lets nobody mount")
    return enter


def mounted(enter: list[str], mount: str) -> list[str]:
    return [*enter, "sh", "-c", f'{mount} && exec "$@"', "sh"]


# Much is said, and then the last of it.
TALKATIVE = (
    "import os\n"
    "for i in range(400): os.environ.get('ASKED_FOR_%03d' % i)\n"
    "print('trained')\n"
    "raise SystemExit(3)\n"
)


@pytest.mark.parametrize("limit", ["size=64k", "nr_inodes=12"])
def test_a_disk_that_fills_up_costs_sentences(
    limit: str, check: Check, own_mounts: list[str], project: Path
) -> None:
    (project / ".manifest").mkdir()
    mount = f"mount -t tmpfs -o {limit} tmpfs .manifest"
    check(TALKATIVE, around=mounted(own_mounts, mount), complains=True)


@pytest.mark.parametrize("option", ["size=4k", "nr_inodes=3", "ro"])
def test_a_disk_that_takes_nothing_costs_a_sentence(
    option: str, check: Check, own_mounts: list[str], project: Path
) -> None:
    # `manifest run` says so, and begins nothing that it was asked to record.
    (project / ".manifest").mkdir()
    mount = f"mount -t tmpfs -o {option} tmpfs .manifest"
    check(TALKATIVE, around=mounted(own_mounts, mount), ways=["record"], complains=True)


def test_a_home_that_is_read_only_is_not_needed(check: Check, own_mounts: list[str]) -> None:
    around = mounted(own_mounts, 'mount -t tmpfs -o ro tmpfs "$HOME"')
    for run in check("import os\nprint(os.access(os.environ['HOME'], os.W_OK))\n", around=around):
        assert run.document()["notes"] == []


def test_files_run_out(check: Check) -> None:
    runs = check(
        "import os, resource\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "try:\n"
        "    while True: os.dup(1)\n"
        "except OSError as error: print(error)\n"
        "try: open('program.py')\n"
        "except OSError as error: print(error)\n"
        "os.environ.get('ASKED_FOR')\n"
    )
    for run in runs:
        document = run.document()
        assert document["status"] == "finished"
        assert any("OSError" in note["what"] for note in document["notes"])


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_a_standard_stream_is_closed_from_the_start(stream: int, check: Check) -> None:
    runs = check(
        "import os\n"
        f"try: os.fstat({stream})\n"
        "except OSError as error: found = str(error)\n"
        f"os.environ.get('ASKED_FOR'); os.write({2 if stream == 1 else 1}, found.encode())\n",
        around=["sh", "-c", f'exec "$@" {stream}>&-', "sh"],
    )
    for run in runs:
        document = run.document()
        assert "asked.ASKED_FOR" in document["sections"]["environment"]
        assert document["status"] == "finished"


def test_files_are_closed_that_the_program_did_not_open(check: Check) -> None:
    # As daemons do; what the program opens then has the numbers that the recording had.
    runs = check(
        "import os\n"
        "os.closerange(3, 256)\n"
        "opened = [open(str(number), 'w+') for number in range(40)]\n"
        "os.environ.get('ASKED_FOR'); import fractions\n"
        "for file in opened: file.write('own'); file.flush()\n"
        "print([os.path.getsize(file.name) for file in opened])\n"
    )
    for run in runs:
        document = run.document()
        assert "asked.ASKED_FOR" in document["sections"]["environment"]
        assert document["status"] == "finished"
        assert document["notes"] == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_folder_is_gone(when: str, check: Check, script: Script) -> None:
    gone = "import os, shutil\nos.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')\n"
    used = (
        "try: open('data')\nexcept OSError as error: print(error)\n"
        "try: os.getcwd()\nexcept OSError as error: print(error)\n"
        "os.environ.get('ASKED_FOR'); import fractions\n"
    )
    if when == "before":
        record = "import sys\nif len(sys.argv) > 1: import manifest; manifest.record()\n"
        path = script("folderless.py", gone + record + used)
        done = [
            subprocess.run(
                [sys.executable, path, *more], capture_output=True, text=True, check=True
            )
            for more in ([], ["record"])
        ]
        assert done[0].stdout == done[1].stdout
        assert done[1].stderr.count("manifest: this run is not recorded") == 1
        return
    runs = check(gone + used)
    assert [run.document()["status"] for run in runs] == ["finished", "finished"]


def test_ten_thousand_generators_are_alive(check: Check) -> None:
    runs = check(
        "import hashlib, random\n"
        "import numpy as np\n"
        "made = [random.Random(i) for i in range(5000)]\n"
        "made += [np.random.default_rng(i) for i in range(5000)]\n"
        "drawn = [generator.random() for generator in made]\n"
        "print(hashlib.sha256(repr(drawn).encode()).hexdigest())\n"
    )
    for run in runs:
        assert run.document()["status"] == "finished"
        assert size_of(run) < 1_000_000


def test_the_working_tree_is_large(check: Check, project: Path) -> None:
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "Begin"]):
        subprocess.run(["git", *command], check=True)
    with open("data.bin", "wb") as file:
        file.truncate(2 << 30)  # sparse: it takes no room on the disk, but 2 GiB to read
    runs = check("print(open('data.bin', 'rb').read(10))\n")
    for run in runs:
        document = run.document()
        (size,) = (
            facts["size"]
            for path, facts in document["sections"]["inputs"].items()
            if path.endswith("/data.bin")
        )
        assert size == 2 << 30
        assert document["sections"]["code"]["git.commit"]
        assert size_of(run) < 1_000_000


CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *out) {
    static int (*real)(clockid_t, struct timespec *);
    static time_t lost;
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int answer = real(clock, out);
    if (clock == CLOCK_REALTIME) out->tv_sec -= lost += 3600;
    return answer;
}
"""


def test_the_clock_runs_backwards(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clock.c").write_text(CLOCK)
    library = tmp_path / "clock.so"
    build = ["cc", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "clock.c"), "-ldl"]
    subprocess.run(build, check=True)
    monkeypatch.setenv("LD_PRELOAD", str(library))
    runs = check("import time\na, b = time.time(), time.time()\nprint(round((a - b) / 3600))\n")
    monkeypatch.delenv("LD_PRELOAD")
    for run in runs:
        document = run.document()
        assert document["processes"]["main"]["ended_at"] < document["started_at"]
    for arguments in (["show", "@latest"], ["ls"]):
        shown = subprocess.run([*MANIFEST, *arguments], capture_output=True, text=True, check=True)
        assert shown.stderr == ""


def test_a_git_that_does_not_answer_is_left_behind_and_noted(
    project: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / ".git").mkdir()
    script("bin/git", "#!/bin/sh\necho $$ >git.pid\nexec sleep 600\n").chmod(0o755)
    monkeypatch.setenv("PATH", f"{project / 'bin'}{os.pathsep}{os.environ['PATH']}")
    script(
        "program.py",
        "import os, manifest, manifest.recorder\n"
        "manifest.recorder._BACKGROUND_TIMEOUT_SECONDS = 0.3\n"
        "manifest.record()\n"
        "while not os.path.exists('git.pid'): pass\n"
        "print('trained')\n",
    )
    done = subprocess.run(WAYS["alone"], capture_output=True, text=True, timeout=60, check=True)
    os.kill(int((project / "git.pid").read_text()), signal.SIGKILL)
    assert (done.stdout, done.stderr) == ("trained\n", "")
    (run,) = run_directories(project / ".manifest")
    assert [note["where"] for note in run.document()["notes"]] == ["background"]


def size_of(run: RunDirectory) -> int:
    return sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())
