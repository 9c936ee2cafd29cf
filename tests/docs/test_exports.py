"""The commands of docs/exports.md, typed in as they stand there."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from manifest.launching import launch
from manifest_client.cli.exporting import Format
from manifest_client.cli.main import main


def test_the_commands_do_what_the_page_says(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (checkout / "docs" / "exports.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("print('trained')\n")
    launch([sys.executable, "train.py"], base=tmp_path / ".manifest")
    commands = [shlex.split(line) for line in re.findall(r"^\$ (manifest .+)$", page, re.MULTILINE)]
    for command in commands:
        monkeypatch.setattr("sys.argv", command)
        with pytest.raises(SystemExit) as ending:
            main()
        assert ending.value.code == 0, command
    written = [command[-1] for command in commands if "-o" in command]
    assert all((tmp_path / name).stat().st_size for name in written)
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(Format)
