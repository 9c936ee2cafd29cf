"""A run as a Dockerfile: few instructions, none of which a manifest can add to."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from manifest.exports.dockerfiles import dockerfile_text
from manifest.exports.scripts import script_text

if TYPE_CHECKING:
    from tests.manifest.exports.conftest import Exported

Sh = Callable[..., subprocess.CompletedProcess[str]]


def parsed(text: str) -> tuple[list[str], str]:
    """The instructions of a Dockerfile as a builder reads them, and the document in it."""
    instructions, document = [], ""
    lines = iter(text.replace("\\\n", " ").split("\n"))
    for line in lines:
        if not line or line.startswith("#"):
            continue
        instructions.append(line)
        if here := re.search(r"<<'([^']+)'", line):
            document = "".join(f"{each}\n" for each in iter(lambda: next(lines), here[1]))
    return instructions, document


def test_it_prepares_the_run_in_the_recorded_python_and_starts_it(
    exported: Exported, sh: Sh
) -> None:
    recorded = exported.recorded
    instructions, script = parsed(dockerfile_text(recorded, exported.run))
    version = recorded.environment["python.version"]
    assert [line.partition(" ")[0] for line in instructions] == [
        "FROM",
        "RUN",
        "ARG",
        "COPY",
        "RUN",
        "CMD",
    ]
    assert instructions[0] == f"FROM python:{version}-slim"
    steps = [json.loads(line.partition(" ")[2]) for line in instructions[-2:]]
    assert [step[:3] for step in steps] == [["sh", "/repeat.sh", "/run-again"]] * 2
    assert sh(script, *steps[0][3:]).returncode == 0
    assert json.loads(sh(script, *steps[1][3:], ARGUMENT_5="x").stdout)["word"] == "changed"


@pytest.mark.parametrize("evil", ["\nRUN touch /evil\n", "\nEND\nRUN touch /evil\n", "\\\n", "`"])
def test_no_value_of_a_manifest_becomes_an_instruction(evil: str, exported: Exported) -> None:
    recorded = exported.altered(
        command={"argv": ["python", "-c", evil, evil]},
        environment={"python.version": f"3{evil}", "env.LANG": evil},
        packages={evil: evil},
        code={"git.remote": evil, "git.left_out": [evil]},
    )
    text = dockerfile_text(recorded, exported.run)
    instructions, _ = parsed(text)
    assert len(instructions) == 6
    assert instructions[0] == "FROM python:3-slim"
    script = script_text(recorded, exported.run)
    assert f"\n{script}END-" in text, "the script is in it as it is"
