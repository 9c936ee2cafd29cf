"""A program that trains starts a process that delivers, and does nothing of the network itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from manifest import shipping
from manifest.identity import new_run_id
from manifest.rundir import RunDirectory

NETWORK = ("httpx2", "socket", "ssl", "http.client", "manifest_client", "pydantic")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", 5.0), ("2", 2.0), ("0", 0.0), ("soon", 5.0), ("-1", 5.0), ("nan", 5.0), ("1e9", 5.0)],
)
def test_how_long_the_end_waits_is_bounded(text: str, seconds: float) -> None:
    assert shipping.longest_wait_seconds({"MANIFEST_TIMEOUT": text}) == seconds


def test_the_end_of_its_wait_is_said_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = RunDirectory.create(tmp_path, new_run_id())
    shipping.await_delivery([run], 0)
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert run.id in said
    assert "manifest sync" in said


def test_the_runs_of_a_program_are_waited_for_together(tmp_path: Path) -> None:
    # A sweep of many jobs would wait for each in turn, where no service answers.
    program = (
        "import os, manifest\n"
        "for _ in range(3): manifest.record().finish()\n"
        "if os.fork() == 0:\n"
        "    manifest.record().finish()\n"
        "else:\n"
        "    os.wait()\n"
    )
    (tmp_path / "manifest_client").mkdir()  # a process that delivers nothing and ends at once
    (tmp_path / "manifest_client" / "__init__.py").touch()
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "PYTHONPATH": str(tmp_path),
            "MANIFEST_URL": "http://127.0.0.1:9",
            "MANIFEST_TIMEOUT": "0",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    of_child, of_parent = ended.stderr.splitlines()
    assert "3 runs are not delivered yet" in of_parent
    assert "3 runs" not in of_child
    assert "not delivered yet" in of_child


def test_nothing_of_it_is_loaded_where_there_is_no_service(tmp_path: Path) -> None:
    program = (
        "import sys, manifest\n"
        "manifest.record().finish()\n"
        "print('manifest.shipping' in sys.modules)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "False\n"


def test_nothing_of_the_network_is_loaded_where_there_is_one(tmp_path: Path) -> None:
    program = (
        "import sys, atexit\n"
        "import manifest\n"
        f"names = {NETWORK!r}\n"
        "atexit.register(lambda: print([name for name in names if name in sys.modules]))\n"
        "manifest.record()\n"
    )
    (tmp_path / "manifest_client").mkdir()  # a process that delivers nothing and ends at once
    (tmp_path / "manifest_client" / "__init__.py").touch()
    (tmp_path / "manifest_client" / "shipper.py").touch()
    environ = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "MANIFEST_URL": "http://127.0.0.1:1",
        "MANIFEST_TIMEOUT": "0",
        "MANIFEST_DIR": str(tmp_path / ".manifest"),
    }
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "[]\n"


def test_what_cannot_be_started_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> int:
        raise OSError("no more processes")

    monkeypatch.setattr(os, "posix_spawn", refused)
    assert not shipping.start_shipper(tmp_path, os.environ)


def test_the_process_gets_what_the_user_set_and_nothing_of_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A module of the same name, which writes down what it was given.
    package = tmp_path / "manifest_client"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "shipper.py").write_text(
        "import json, os, sys\n"
        "with open(sys.argv[1] + '/draft', 'w') as file:\n"
        "    json.dump([dict(os.environ), os.getsid(0)], file)\n"
        "os.rename(sys.argv[1] + '/draft', sys.argv[1] + '/told')\n"
    )
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(tmp_path),
        "MANIFEST_URL": "http://service",
        "MANIFEST_TOKEN": "mft_x",
        "MANIFEST_RUN_DIR": "/run",
        "MANIFEST_PROCESS": "main",
    }
    assert shipping.start_shipper(tmp_path, environ)
    deadline = time.monotonic() + 60
    while not (tmp_path / "told").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    told = (tmp_path / "told").read_text()
    assert '"MANIFEST_URL": "http://service"' in told
    assert '"MANIFEST_TOKEN": "mft_x"' in told
    assert "MANIFEST_RUN_DIR" not in told
    assert "MANIFEST_PROCESS" not in told
    assert not told.endswith(f" {os.getsid(0)}]")
