"""`manifest export`, as it is typed: every format of one run, and nothing secret in any."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from manifest.rundir import RunDirectory
from manifest_client.cli.exporting import Format
from manifest_client.cli.main import main

SECRET = "hunter2-9f8e7d6c5b4a"
TEXTS = ["requirements", "script", "dockerfile", "intoto"]


@pytest.fixture
def run(
    script: Callable[[str, str], Path],
    recorded: Callable[..., object],
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> RunDirectory:
    """A run of a program that was given secrets in every way."""
    script("program.py", "import os\nos.environ.get('API_TOKEN'), os.environ.get('FLAVOUR')\n")
    monkeypatch.setenv("API_TOKEN", SECRET)
    monkeypatch.setenv("DATABASE_URL", f"postgres://ada:{SECRET}@db/x")
    monkeypatch.setenv("NEVER_ASKED_FOR", SECRET)
    recorded("program.py", "--token", SECRET, f"--password={SECRET}", f"https://ada:{SECRET}@x/y")
    (path,) = (base / "runs").iterdir()
    return RunDirectory(path)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["manifest", *arguments])
    with pytest.raises(SystemExit) as ending:
        main()
    return int(ending.value.code or 0)


def test_every_format_is_the_same_each_time_and_holds_no_secret(
    run: RunDirectory, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for form in Format:
        written = []
        for _ in range(2):
            capfdbinary.readouterr()
            assert call(monkeypatch, "export", "@latest", "--format", form) == 0
            written.append(capfdbinary.readouterr().out)
        assert written[0] == written[1]
        assert written[0]
        parts = [written[0]]
        if form is Format.ROCRATE:
            with zipfile.ZipFile(io.BytesIO(written[0])) as crate:
                parts = [crate.read(name) for name in crate.namelist()]
        assert not any(SECRET.encode() in part for part in parts), form
        assert not any(b"NEVER_ASKED_FOR" in part for part in parts), form
        if form in TEXTS:
            assert run.id.encode() in written[0]


def test_a_file_that_is_there_is_written_over_only_on_request(
    run: RunDirectory,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out.json"
    out.write_text("mine")
    command = ("export", run.id, "-f", "intoto", "-o", str(out))
    assert call(monkeypatch, *command) == 2
    assert out.read_text() == "mine"
    assert "--force" in capsys.readouterr().err
    assert call(monkeypatch, *command, "--force") == 0
    assert json.loads(out.read_text())["predicateType"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("place", "said"), [("", "is a folder"), ("none/out.json", "there is no folder")]
)
def test_a_place_that_takes_no_file_is_named_as_it_was_typed(
    place: str,
    said: str,
    run: RunDirectory,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ("export", run.id, "-f", "intoto", "-o", str(tmp_path / place), "--force")
    assert call(monkeypatch, *command) == 2
    assert said in capsys.readouterr().err


def test_what_cannot_be_written_leaves_no_file(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for blob in run.path.glob("blobs/*/*"):
        blob.unlink()
    assert call(monkeypatch, "export", run.id, "-f", "script", "-o", str(tmp_path / "x")) == 3
    assert not (tmp_path / "x").exists()


def test_a_terminal_is_not_given_bytes(
    run: RunDirectory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert call(monkeypatch, "export", run.id, "--format", "archive") == 2
    assert "add -o FILE" in capsys.readouterr().err
