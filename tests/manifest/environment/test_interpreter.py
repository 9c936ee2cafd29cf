"""The interpreter as it runs, not as it was asked to run."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from manifest.canonical import Json
from manifest.environment.interpreter import capture_interpreter

PROGRAM = (
    "import json; from manifest.environment.interpreter import capture_interpreter;"
    "print(json.dumps(capture_interpreter()))"
)


def captured_by(*options: str, **variables: str) -> dict[str, Json]:
    answer = subprocess.run(
        ["sh", "-c", 'umask 027; exec "$@"', "sh", sys.executable, *options, "-c", PROGRAM],
        env={**os.environ, **variables},
        capture_output=True,
        check=True,
    )
    captured: dict[str, Json] = json.loads(answer.stdout)
    return captured


def test_no_probe_fails_and_all_values_are_plain() -> None:
    captured = capture_interpreter()
    assert [key for key, value in captured.items() if "$failed" in str(value)] == []
    assert json.loads(json.dumps(captured)) == captured
    assert captured["python.version"] == ".".join(map(str, sys.version_info[:3]))
    assert captured["python.path"] == sys.path


def test_hash_randomization_is_the_one_in_effect() -> None:
    assert captured_by(PYTHONHASHSEED="0")["python.hash_randomization"] is False
    assert captured_by(PYTHONHASHSEED="7")["python.hash_randomization"] is True
    # The variable says 0, the interpreter was told not to look.
    assert captured_by("-E", PYTHONHASHSEED="0")["python.flags"]["ignore_environment"] == 1
    assert captured_by("-E", PYTHONHASHSEED="0")["python.hash_randomization"] is True


def test_options_and_process_state_are_recorded() -> None:
    captured = captured_by("-O", "-X", "utf8", "-W", "ignore", TZ="Asia/Tokyo")
    assert captured["python.flags"]["optimize"] == 1
    assert captured["python.options"] == {"utf8": True}
    assert captured["python.warnings"] == ["ignore"]
    assert captured["process.umask"] == "0027"
    assert captured["process.time_zone"] == ["JST", "JST"]
    assert captured["process.affinity"].replace("-", ",").split(",")[0].isdigit()


def test_reading_changes_neither_umask_nor_locale() -> None:
    before = capture_interpreter()
    assert capture_interpreter() == before


def test_the_locale_is_the_one_in_effect() -> None:
    assert captured_by(LC_ALL="C.UTF-8")["process.locale"] == "LC_CTYPE=C.UTF-8;" + ";".join(
        f"LC_{name}=C"
        for name in (
            *("NUMERIC", "TIME", "COLLATE", "MONETARY", "MESSAGES", "PAPER", "NAME", "ADDRESS"),
            *("TELEPHONE", "MEASUREMENT", "IDENTIFICATION"),
        )
    )
