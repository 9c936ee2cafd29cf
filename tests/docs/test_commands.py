"""docs/commands.md is what the commands say of themselves.

A change that is meant: REWRITE_GOLDEN=1 pytest tests/docs/test_commands.py
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from manifest_client.cli.main import app

WIDTH: Final = {"COLUMNS": "80", "TERMINAL_WIDTH": "80"}
HEAD: Final = """\
# Commands

What `manifest COMMAND --help` says, of every command. Programs exit with the code of the program
that they record; all other commands with

| code | means |
| --- | --- |
| 0 | as expected |
| 1 | diverged, different, or not reproducible; something is bad |
| 2 | a mistake in the call, or no such run |
| 3 | not replayable, or not judged |
| 4 | the service cannot be reached |
| 70 | a fault of Manifest itself |
| 130 | interrupted |
"""


def helps(command: Any, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The name of each command and its help; of a group, those of its members."""
    for name, member in getattr(command, "commands", {}).items():
        if not member.hidden:
            yield from helps(member, (*names, name))
    if not hasattr(command, "commands"):
        answer = CliRunner().invoke(app, [*names, "--help"], prog_name="manifest", env=WIDTH)
        assert answer.exit_code == 0, answer.output
        yield " ".join(("manifest", *names)), answer.output


def reference() -> str:
    parts = [HEAD]
    for name, text in helps(get_command(app), ()):
        lines = "\n".join(line.rstrip() for line in text.strip().splitlines())
        parts.append(f"\n## {name}\n\n```text\n{lines}\n```\n")
    return "".join(parts)


def test_the_reference_is_what_the_commands_say(checkout: Path) -> None:
    path = checkout / "docs" / "commands.md"
    if os.environ.get("REWRITE_GOLDEN"):
        path.write_text(reference(), encoding="utf-8")
    assert path.read_text(encoding="utf-8") == reference()


@pytest.mark.parametrize("group", [(), ("token",), ("db",)], ids=" ".join)
def test_lists_of_commands_cut_no_sentence_off(group: tuple[str, ...]) -> None:
    answer = CliRunner().invoke(app, [*group, "--help"], prog_name="manifest", env=WIDTH)

    _, _, listed = answer.output.partition("Commands:")
    assert listed
    assert "..." not in listed
