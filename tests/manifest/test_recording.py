"""`record()`: every way to call it, and that the program does not notice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifest.rundir import RunDirectory, run_directories

Python = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def python(tmp_path: Path) -> Python:
    """Run source as a script in an empty folder."""

    def run(source: str, **variables: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "script.py").write_text(source)
        return subprocess.run(
            [sys.executable, "script.py"],
            cwd=tmp_path,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def runs(folder: Path) -> list[dict[str, Any]]:
    return [run.document() for run in reversed(run_directories(folder / ".manifest"))]


def test_a_plain_call_records_to_the_end_of_the_program(python: Python, tmp_path: Path) -> None:
    done = python("import manifest\nrun = manifest.record(config={'lr': 0.1})\nprint(run.id)\n")
    (run,) = runs(tmp_path)
    assert done.stdout.strip() == run["id"]
    assert done.stderr == ""
    assert (run["status"], run["sections"]["config"]) == ("finished", {"lr": 0.1})
    assert run["sections"]["command"]["argv"][1:] == ["script.py"]
    assert "script.py" in run["sections"]["code"]["files"]


def test_a_with_block_ends_the_run_and_another_may_follow(python: Python, tmp_path: Path) -> None:
    done = python(
        "import manifest, random\n"
        "with manifest.record(name='first'):\n"
        "    random.Random().random()\n"
        "random.Random().random()\n"
        "with manifest.record(name='second') as run:\n"
        "    random.Random().random(); random.Random().random()\n"
    )
    assert done.returncode == 0, done.stderr
    first, second = runs(tmp_path)
    assert (first["name"], second["name"]) == ("first", "second")
    assert first["sections"]["seeds"]["entropy"] != second["sections"]["seeds"]["entropy"]
    assert first["sections"]["seeds"]["draws"]["python.random"] == 1
    assert second["sections"]["seeds"]["draws"]["python.random"] == 2


def test_an_exception_in_a_with_block_is_recorded_and_passed_on(
    python: Python, tmp_path: Path
) -> None:
    done = python("import manifest\nwith manifest.record():\n    raise KeyError('lr')\n")
    (run,) = runs(tmp_path)
    assert done.returncode == 1
    assert "KeyError: 'lr'" in done.stderr
    assert (run["status"], run["error"]) == ("failed", "KeyError: 'lr'")


def test_a_decorated_function_is_a_run_at_each_call(python: Python, tmp_path: Path) -> None:
    done = python(
        "import manifest\n"
        "@manifest.record\n"
        "def train(rate, *, steps): return rate * steps\n"
        "print(train(2, steps=3), train(1, steps=1), train.__name__)\n"
        "@manifest.record(project='named')\n"
        "def other(): return 'x'\n"
        "print(other())\n"
    )
    assert done.stdout == "6 1 train\nx\n"
    assert [run["project"] for run in runs(tmp_path)][2] == "named"
    assert len(runs(tmp_path)) == 3


def test_recording_can_be_switched_off(python: Python, tmp_path: Path) -> None:
    source = (
        "import manifest\n"
        "with manifest.record(config={}) as run:\n"
        "    run.log_config({'a': 1})\n"
        "print(run, run.id, run.path)\n"
    )
    done = python(source, MANIFEST_MODE="disabled")
    assert done.stdout == "<Run not recorded> None None\n"
    assert not (tmp_path / ".manifest").exists()


def test_a_folder_that_cannot_be_written_costs_one_line(python: Python, tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("")
    source = "import manifest\nmanifest.record()\nprint('trained')\n"
    done = python(source, MANIFEST_DIR=str(tmp_path / "blocked"))
    assert (done.returncode, done.stdout) == (0, "trained\n")
    assert done.stderr.count("\n") == 1
    assert "not recorded" in done.stderr
    strict = python(
        source.replace("()", "(strict=True)", 1), MANIFEST_DIR=str(tmp_path / "blocked")
    )
    assert strict.returncode == 1
    assert "NotRecordable" in strict.stderr


def test_what_recording_reads_of_a_repository_is_no_input_of_the_program(
    python: Python, tmp_path: Path
) -> None:
    for name in ("data.txt", "notes.txt"):
        (tmp_path / name).write_text(name)
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (["init", "-q"], ["add", "data.txt"], [*who, "commit", "-qm", "begin"]):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    done = python(
        "import manifest\n"
        "run = manifest.record()\n"
        "open('data.txt').read()\n"
        "open('out.txt', 'w').write('done')\n"
        "run.finish()\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
    (run,) = run_directories(tmp_path / ".manifest")
    sections = run.document()["sections"]
    assert "notes.txt" in str(sections["code"])  # which was read, for it is untracked
    assert [Path(path).name for path in sections["inputs"]] == ["data.txt"]
    assert [Path(path).name for path in sections["outputs"]] == ["out.txt"]


def test_a_disk_that_fills_up_costs_one_line_and_the_run_goes_on(
    python: Python, tmp_path: Path
) -> None:
    done = python(
        "import manifest, resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "run = manifest.record()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))\n"
        "for i in range(50): run.log_config({f'key{i}': 'x' * 1000})\n"
        "print('trained')\n"
    )
    assert (done.returncode, done.stdout) == (0, "trained\n")
    assert done.stderr.count("manifest: recording stopped, the program goes on") == 1
    (run,) = run_directories(tmp_path / ".manifest")
    assert run.document()["sections"]["config"]["key0"] == "x" * 1000


HARM = """
import json, random, sys, threading
import numpy as np, torch

def digest():
    cuda = torch.cuda.is_initialized()
    return repr((random.getstate(), np.random.get_state(legacy=False),
                 torch.get_rng_state().tolist(),
                 generator.bit_generator.state, own.getstate(), torch.initial_seed(), cuda,
                 torch.is_grad_enabled(), torch.get_num_threads(), torch.get_default_dtype(),
                 torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark))

generator, own = np.random.default_rng(1), random.Random(2)
before, modules = digest(), set(sys.modules)
import manifest
run = manifest.record()
for thread in threading.enumerate():
    if thread.name.startswith("manifest"): thread.join()
run.finish()
foreign = {name.partition(".")[0] for name in set(sys.modules) - modules}
print(json.dumps([before == digest(), sorted(foreign - set(sys.stdlib_module_names))]))
"""


def test_recording_draws_nothing_changes_nothing_and_imports_nothing_foreign(
    python: Python,
) -> None:
    done = python(HARM)
    assert done.returncode == 0, done.stderr
    is_equal, foreign = json.loads(done.stdout)
    assert is_equal
    assert set(foreign) <= {"manifest", "xxhash"}


def test_a_call_inside_a_recorded_program_joins_its_run(tmp_path: Path) -> None:
    from manifest.launching import launch

    script = tmp_path / "train.py"
    script.write_text(
        "from manifest import record\nrecord(name='mine', config={'a': 1}).finish()\n"
    )
    launched = launch([sys.executable, str(script)], base=tmp_path / ".manifest")
    document = launched.run.document()
    assert [RunDirectory(launched.run.path).id] == [run["id"] for run in runs(tmp_path)]
    assert (document["mode"], document["name"]) == ("run", "mine")
    assert document["sections"]["config"] == {"a": 1}


@pytest.mark.parametrize(
    "source",
    [
        "import manifest; print(manifest.record.__name__)",
        "from manifest import *; print(record.__name__)",
        "import manifest; print(manifest.__version__ and 'record')",
        "import manifest; manifest.Run; print(manifest.record.__name__)",
        "import manifest; print(getattr(manifest, 'no_such_name', 'record'))",
    ],
)
def test_a_recorded_program_has_the_whole_package_once_it_asks(
    source: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from manifest.launching import launch

    before = (
        "import sys; assert 'manifest.recording' not in sys.modules, 'costs nothing until then'"
    )
    launch([sys.executable, "-c", f"{before}\n{source}"], base=tmp_path / ".manifest")
    assert capfd.readouterr() == ("record\n", "")


def test_packages_that_came_from_elsewhere_say_from_where(python: Python, tmp_path: Path) -> None:
    python("import manifest\nmanifest.record()\n")
    (run,) = runs(tmp_path)
    origins = run["sections"]["environment"]["packages.origins"]
    assert origins["manifest-replay"]["editable"] is True
