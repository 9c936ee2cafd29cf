"""A run as a shell script: it does what the run did, and nothing that a manifest slips in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from manifest.errors import NotReplayable
from manifest.exports.scripts import script_text

if TYPE_CHECKING:
    from tests.manifest.exports.conftest import Exported

Sh = Callable[..., subprocess.CompletedProcess[str]]
SHELLCHECK = str(Path(sys.executable).with_name("shellcheck"))


def test_the_script_lays_out_the_commit_with_its_changes_and_runs_the_command(
    exported: Exported, sh: Sh, tmp_path: Path
) -> None:
    done = sh(script_text(exported.recorded, exported.run), ARGUMENT_5="given")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["argv"] == ["--lr", "0.1 $HOME", "--password", "given"]
    assert (seen["word"], seen["config"]) == ("changed", "1")
    assert seen["files"] == ["config.json", "new it's.txt", "src", "unused.txt"]
    assert seen["variables"]["OMP_NUM_THREADS"] == "3"
    assert seen["variables"]["FLAVOUR"] == "vanilla"
    assert seen["variables"]["PYTHONHASHSEED"] == exported.recorded.seeds.hash_seed
    assert (tmp_path / "again/project/unused.txt").read_text() == "changed\n"
    assert (tmp_path / "again/project/model.bin").read_bytes() == b"weights"


def test_it_does_so_in_two_parts(exported: Exported, sh: Sh, tmp_path: Path) -> None:
    script = script_text(exported.recorded, exported.run)
    assert sh(script, "run").returncode != 0
    assert sh(script, "lay-out").stdout == ""
    assert (tmp_path / "again/project/src/parts.py").is_file()
    assert not (tmp_path / "again/project/model.bin").exists()
    assert json.loads(sh(script, "run", ARGUMENT_5="x").stdout)["word"] == "changed"
    assert sh(script).returncode != 0, "the folder is there already"


def test_without_a_repository_the_files_that_ran_are_laid_out(
    exported: Exported, sh: Sh, tmp_path: Path
) -> None:
    script = script_text(exported.recorded, exported.run)
    done = sh(script, REPOSITORY="", ARGUMENT_5="x")
    assert "no repository is known" in done.stderr
    assert json.loads(done.stdout)["word"] == "changed"
    assert not (tmp_path / "again/project/unused.txt").exists()


def test_an_argument_that_was_not_stored_is_asked_for(exported: Exported, sh: Sh) -> None:
    done = sh(script_text(exported.recorded, exported.run))
    assert done.returncode != 0
    assert "argument 5 was not stored" in done.stderr


def test_another_python_than_the_recorded_one_is_told(exported: Exported, sh: Sh) -> None:
    same = script_text(exported.recorded, exported.run)
    other = exported.altered(environment={"python.version": "3.99.1"})
    assert sh(same, ARGUMENT_5="x").stderr == ""
    done = sh(script_text(other, exported.run), "run", ARGUMENT_5="x")
    assert done.stderr.endswith("; the run was recorded with 3.99.1\n")
    assert done.returncode == 0


def test_shellcheck_finds_nothing(exported: Exported, tmp_path: Path) -> None:
    path = tmp_path / "repeat.sh"
    path.write_text(script_text(exported.recorded, exported.run))
    done = subprocess.run(
        [SHELLCHECK, path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


EVIL = [
    "$(touch {marker})",
    "`touch {marker}`",
    "'; touch {marker}; '",
    '"; touch {marker}; "',
    "\ntouch {marker}\n",
    "\nEND\ntouch {marker}\n",
    "\r\ntouch {marker}\r\n",
    "\u2028touch {marker}",
    "x & touch {marker} #",
    "-x\\\n; touch {marker}",
    "}}; touch {marker}; {{",
]


@pytest.mark.parametrize("evil", EVIL)
def test_no_value_of_a_manifest_is_run_by_the_shell(
    evil: str, exported: Exported, sh: Sh, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    text = evil.format(marker=marker)
    some = next(iter(exported.recorded.sources.values()))
    recorded = exported.altered(
        command={"argv": ["python", "-c", "import json, sys; print(json.dumps(sys.argv))", text]},
        code={
            "files": {f"src/{text.replace('/', '_')}": some},
            "git.remote": text,
            "git.branch": text,
            "git.left_out": [text],
            "git.untracked": {text.replace("/", "_"): some},
        },
        packages=dict.fromkeys(exported.recorded.packages) | {text: "1", "a": text, "b": "1"},
        environment={
            "env.OMP_NUM_THREADS": text,
            "env.LANG": text,
            "asked.FLAVOUR": text,
            f"asked.{text}": "1",
            f"env.{text}": "1",
            "python.version": text,
            "given.umask": text,
            "packages.origins": {"b": {"url": text, "commit": text}},
        },
    )
    script = script_text(recorded, exported.run)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "uv").write_text("#!/bin/sh\nexit 0\n")  # what it would install is looked at elsewhere
    (tools / "uv").chmod(0o755)
    for environment in (sys.prefix, ""):
        path = os.pathsep.join([str(tools), os.environ["PATH"]])
        done = sh(script, "lay-out", ENVIRONMENT=environment, REPOSITORY="", PATH=path)
        assert not marker.exists(), done.stderr
        assert done.returncode == 0, done.stderr
        shutil.rmtree(tmp_path / "again")
    sh(script, "lay-out")
    assert not marker.exists()
    shutil.rmtree(tmp_path / "again")
    done = sh(script, REPOSITORY="")
    assert not marker.exists()
    assert json.loads(done.stdout) == ["-c", text]


@pytest.mark.parametrize("argv", [[], [{"$redacted": "00"}], [{"$redacted": "00"}, "x"]])
def test_without_a_command_there_is_no_script(argv: list[Any], exported: Exported) -> None:
    with pytest.raises(NotReplayable, match="no command"):
        script_text(exported.altered(command={"argv": argv}), exported.run)


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", ".git/hooks/post-checkout"])
def test_a_path_that_leaves_the_project_is_refused(path: str, exported: Exported) -> None:
    some = next(iter(exported.recorded.sources.values()))
    with pytest.raises(NotReplayable, match="leaves"):
        script_text(exported.altered(code={"files": {path: some}}), exported.run)
    with pytest.raises(NotReplayable, match="leaves"):
        script_text(exported.altered(code={"git.untracked": {path: some}}), exported.run)


def test_variables_that_decide_what_is_run_are_not_set(exported: Exported) -> None:
    names = ("LD_PRELOAD", "PATH", "PYTHONPATH", "PYTHONSTARTUP", "BASH_ENV", "GIT_SSH_COMMAND")
    environment = {f"{kind}.{name}": "evil" for name in names for kind in ("env", "asked")}
    script = script_text(exported.altered(environment=environment), exported.run)
    assert "=evil" not in script
