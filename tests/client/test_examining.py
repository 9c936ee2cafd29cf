"""`manifest doctor` finds what is broken here, says what to do, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from manifest.rundir import RunDirectory
from manifest_client.examining import Finding, examine

Record = Callable[..., RunDirectory]
Service = Any  # the class is that of the fixture


class Answer(NamedTuple):
    """What a command answered; the fixture `call` gives one of this shape."""

    code: int
    out: str
    err: str


Call = Callable[..., Answer]


def found(what: str) -> Finding:
    (finding,) = (each for each in examine() if each.what == what)
    return finding


def test_a_machine_that_has_everything(
    call: Call, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    answer = call("doctor", "--json")
    findings = {each["what"]: each for each in json.loads(answer.out)}
    assert answer.code == 0, answer.out
    assert findings["torch"]["found"].startswith("2.")
    assert {each["state"] for each in findings.values()} == {"good"}
    assert findings["recording"]["found"].startswith("a process records itself")
    assert not base.exists(), "nothing is left behind"


def test_what_is_bad_is_told_with_its_cure_and_the_exit_code(
    call: Call, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    monkeypatch.setenv("MANIFEST_UNTIL", "3")
    monkeypatch.setenv("MANIFEST_URL", "http://127.0.0.1:9")
    answer = call("doctor")
    lines = answer.out.splitlines()
    assert answer.code == 1
    assert any(line.split()[:2] == ["bad", "threads"] for line in lines)
    assert any(line.split()[:2] == ["bad", "service"] for line in lines)
    assert any(line.split()[:2] == ["look", "MANIFEST_UNTIL"] for line in lines)
    assert "fix: set OMP_NUM_THREADS to a number" in answer.out


def test_a_variable_that_is_off_is_none_to_look_at(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_DYNAMIC", "FALSE")
    assert all(each.what != "OMP_DYNAMIC" for each in examine())


def test_a_folder_that_cannot_be_written_to(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANIFEST_DIR", "/proc/runs")
    assert found("folder").state == "bad"


def test_a_clock_that_is_behind_the_newest_run(record: Record, base: Path) -> None:
    (base / "runs" / "09990000-0000-7000-8000-000000000001").mkdir(parents=True)
    assert found("clock").state == "bad"


def test_a_run_that_cannot_be_read_is_named(record: Record, base: Path) -> None:
    run = record()
    assert found("store").state == "good"
    (base / "store.db").unlink()
    (run.path / "manifest.json").write_text("{}")
    store = found("store")
    assert store.state == "warning"
    assert run.id in store.found


def test_settings_that_cannot_be_used(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANIFEST_MODE", "sometimes")
    assert found("settings").state == "bad"


def test_a_service_that_asks_for_a_token(guarded: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANIFEST_URL", guarded.url)
    service = found("service")
    assert (service.state, service.fix) == ("bad", f"`manifest login {guarded.url}`")
    monkeypatch.setenv("MANIFEST_TOKEN", guarded.token("read"))
    assert found("service").state == "good"


@pytest.mark.parametrize("is_same", [True, False])
def test_a_python_on_the_path_is_asked_whether_it_is_this_one(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_same: bool
) -> None:
    shim = tmp_path / "python"
    shim.write_text(
        f'#!/bin/sh\nexec {sys.executable} "$@"\n' if is_same else "#!/bin/sh\necho /other\n"
    )
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    told = [each.found for each in examine() if each.what == "PATH"]
    assert told == (
        [] if is_same else ["`python` starts another: /other, with packages of its own"]
    )


def test_python_that_keeps_manifest_out(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = base.parent / "bin"
    folder.mkdir()
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    recording = found("recording")
    assert recording.state == "bad"
    assert "-I, -E or -S" in recording.found


def test_a_tiny_training_is_repeated_on_request(base: Path) -> None:
    *_, replay = examine(is_running=True)
    assert (replay.what, replay.state) == ("replay", "good"), replay.found


def test_accelerators_are_told_with_what_their_products_need(
    base: Path, tmp_path: Path, build_driver: Callable[..., str]
) -> None:
    environ = {**os.environ, "LD_LIBRARY_PATH": str(Path(build_driver(tmp_path)).parent)}
    command = [str(Path(sys.executable).with_name("manifest")), "doctor", "--json"]
    told = subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout
    findings = {each["what"]: each for each in json.loads(told)}
    assert findings["accelerators"]["found"].startswith("NVIDIA H100 80GB HBM3")
    assert findings["cublas"]["state"] == "warning"
    assert "CUBLAS_WORKSPACE_CONFIG=:4096:8" in findings["cublas"]["fix"]
