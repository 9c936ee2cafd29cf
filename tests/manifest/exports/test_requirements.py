"""A requirements file holds what was recorded, says what it cannot, and names nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from manifest.exports.requirements import requirements_text

if TYPE_CHECKING:
    from tests.manifest.exports.conftest import Exported

UV = str(Path(sys.executable).with_name("uv"))


def text_of(exported: Exported, packages: dict[str, str], origins: dict[str, Any]) -> str:
    return requirements_text(
        exported.altered(
            packages={**dict.fromkeys(exported.recorded.packages), **packages},
            environment={"packages.origins": origins, "python.version": "3.12.3"},
        )
    )


def test_packages_stand_at_their_version_commit_or_digest(exported: Exported) -> None:
    root = exported.project
    packages = dict.fromkeys(("a", "b", "c", "own", "other", "manifest-replay"), "1.0")
    origins = {
        "b": {"url": "https://example.org/b.git", "commit": "1" * 40},
        "c": {"url": "https://example.org/c.whl", "digest": "sha256:" + "2" * 64},
        "own": {"url": f"file://{root}", "editable": True},
        "other": {"url": "file:///elsewhere", "editable": True},
    }
    lines = text_of(exported, packages, origins).splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "a==1.0",
        f"b @ git+https://example.org/b.git@{'1' * 40}",
        f"c @ https://example.org/c.whl#sha256={'2' * 64}",
    ]
    assert "with Python 3.12.3" in lines[0]
    assert lines[-2].startswith("# not listed: other: it was an editable install of file:///else")
    assert lines[-1] == "# not listed: own: the project itself holds its source"


@pytest.mark.parametrize("build", ["cpu", "cu126", "rocm6.4", "xpu"])
def test_a_build_of_torch_brings_the_index_that_has_it(build: str, exported: Exported) -> None:
    text = text_of(exported, {"torch": f"2.13.0+{build}", "six": "1.16.0"}, {})
    indexes = [line for line in text.splitlines() if line.startswith("--")]
    assert indexes == [f"--extra-index-url https://download.pytorch.org/whl/{build}"]


@pytest.mark.parametrize("end", ["\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\\\n"])
def test_no_value_of_a_manifest_becomes_a_line(end: str, exported: Exported) -> None:
    evil = f"1{end}--index-url https://evil.example{end}"
    text = text_of(exported, {evil: "1", "a": evil, "b": "1"}, {"b": {"url": evil}})
    assert [line for line in text.splitlines() if not line.startswith("#")] == []


@pytest.mark.network
def test_installers_accept_it(exported: Exported, tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    packages = {"six": "1.16.0", "iniconfig": "2.0.0", "evil\n--pre": "1"}
    path.write_text(text_of(exported, packages, {}))
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed"]
    uv = [UV, "pip", "compile", "--quiet", "--no-deps", "--no-annotate", "--no-header"]
    asked = subprocess.run([*pip, "-r", path], capture_output=True, text=True, check=True)
    assert "Would install iniconfig-2.0.0 six-1.16.0" in asked.stdout
    locked = subprocess.run([*uv, path], capture_output=True, text=True, check=True)
    assert locked.stdout.split() == ["iniconfig==2.0.0", "six==1.16.0"]
