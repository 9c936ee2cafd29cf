"""Programs are recorded in environments that are not Manifest's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from manifest.errors import NotRecordable, NotReplayable
from manifest.launching import launch
from manifest.replaying import plan, replay

Script = Callable[[str, str], Path]


def test_a_program_in_an_environment_without_manifest_is_recorded(
    script: Script, base: Path, tmp_path: Path
) -> None:
    environment = tmp_path / "other"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    script(
        "program.py",
        "import random, sys\n"
        "open(sys.argv[1], 'a').write(repr(random.random()) + '\\n')\n"
        "try: import pydantic\n"
        "except ImportError: print('alone')\n",
    )
    command = [str(environment / "bin" / "python"), "program.py", str(tmp_path / "drawn")]
    first = launch(command, base=base)
    launch(command, base=base, like=first.run)
    launch(command, base=base)
    drawn = (tmp_path / "drawn").read_text().split()
    assert drawn[0] == drawn[1] != drawn[2]
    document = first.run.document()
    assert document["status"] == "finished"
    assert document["sections"]["environment"]["python.prefix"] == str(environment)


def test_a_program_with_a_module_called_manifest_is_left_alone(
    script: Script, base: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script("manifest.py", "NAME = 'my own'\n")
    script("program.py", "import manifest\nprint(manifest.NAME)\n")
    assert launch([sys.executable, "program.py"], base=base).exit_code == 0
    out, err = capfd.readouterr()
    assert out == "my own\n"
    assert err.count("\n") == 1
    assert "not recorded" in err
    assert "module named manifest of its own" in err


def test_a_sitecustomize_of_the_user_still_runs(
    script: Script, base: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = script("own/sitecustomize.py", "print('customized')\n").parent
    monkeypatch.setenv("PYTHONPATH", str(folder))
    script("program.py", "import sys\nprint([p for p in sys.path if 'bootstrap' in p])\n")
    launched = launch([sys.executable, "program.py"], base=base)
    assert capfd.readouterr().out == "customized\n[]\n"
    recorded = launched.run.document()["sections"]["environment"]
    assert recorded["env.PYTHONPATH"] == str(folder)


def test_a_shell_script_runs_several_programs_with_streams_of_their_own(
    script: Script, base: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script("draw.py", "import random\nprint(random.random())\n")
    script("all.sh", f"for i in 1 2 3; do '{sys.executable}' draw.py; done\n")
    first = launch(["sh", "all.sh"], base=base)
    launch(["sh", "all.sh"], base=base, like=first.run)
    drawn = capfd.readouterr().out.split()
    assert len(set(drawn[:3])) == 3
    assert drawn[:3] == drawn[3:]


@pytest.mark.parametrize("command", [[], ["no-such-program"], ["./missing.sh"]])
def test_a_command_that_cannot_be_started_is_said_and_leaves_no_run(
    command: list[str], base: Path
) -> None:
    with pytest.raises(NotRecordable, match=r"manifest run -- python train\.py"):
        launch(command, base=base)
    assert not (base / "runs").exists() or list((base / "runs").iterdir()) == []


def test_a_python_file_alone_is_run_by_this_interpreter(
    script: Script, base: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script("program.py", "import sys\nprint(sys.executable, sys.argv)\n")
    launch(["program.py", "--lr", "1"], base=base)
    assert capfd.readouterr().out.strip() == f"{sys.executable} ['program.py', '--lr', '1']"


def test_source_of_a_package_for_editing_that_changed_stops_a_replay(
    script: Script, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, site = tmp_path / "library", tmp_path / "site"
    (library / "tiny_lib").mkdir(parents=True)
    (library / "tiny_lib" / "__init__.py").write_text("scale = 2\n")
    facts = site / "tiny_lib-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-lib\nVersion: 1.0\n")
    origin = {"url": library.as_uri(), "dir_info": {"editable": True}}
    (facts / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{library}")
    script("program.py", "import tiny_lib\n")
    run = launch([sys.executable, "program.py"], base=base).run
    assert not [item for item in plan(run).items if item.what == "source of tiny-lib"]

    (library / "tiny_lib" / "__init__.py").write_text("scale = 9\n")
    (found,) = (item for item in plan(run).items if item.what == "source of tiny-lib")
    assert found.state == "impossible"
    assert "__init__.py is another than the run imported" in found.why
    with pytest.raises(NotReplayable, match="tiny-lib"):
        replay(run, base=base)
    assert replay(run, base=base, best_effort=True).original == run.id
