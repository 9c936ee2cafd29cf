"""Environments made anew from what a run recorded, apart from the user's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from manifest.errors import NotReplayable
from manifest.launching import launch
from manifest.models import Manifest
from manifest.planning import Wish
from manifest.rebuilding import rebuild, requirements
from manifest.recorded import Recorded, read
from manifest.replaying import plan, replay
from manifest.rundir import RunDirectory

PROGRAM = """
import json, sys
import iniconfig, six
found = [six.__version__, sys.prefix, "manifest" in sys.modules]
open(sys.argv[1], "a").write(json.dumps(found) + "\\n")
"""
UV = str(Path(sys.executable).with_name("uv"))

needs_index = pytest.mark.network


def install(environment: Path, *what: str) -> None:
    command = [UV, "pip", "install", "--quiet", "--no-deps", "--python", str(environment), *what]
    subprocess.run(command, check=True)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where environments are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "manifest" / "environments"


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """An environment of the user's, with two old packages."""
    folder = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    install(folder, "six==1.15.0", "iniconfig==1.1.1")
    return folder


def altered(run: RunDirectory, **packages: str) -> Recorded:
    manifest = Manifest.model_validate(run.document())
    sections = {**manifest.sections, "packages": {**manifest.sections["packages"], **packages}}
    return read(manifest.model_copy(update={"sections": sections}))


@needs_index
def test_a_replay_has_the_recorded_packages_and_the_users_environment_stays(
    environment: Path,
    cache: Path,
    script: Callable[[str, str], Path],
    base: Path,
    tmp_path: Path,
) -> None:
    script("program.py", PROGRAM)
    out = tmp_path / "said"
    run = launch([str(environment / "bin" / "python"), "program.py", str(out)], base=base).run
    install(environment, "six==1.16.0")
    items = {item.what: item for item in plan(run).items}
    assert items["package six"].state == "impossible"
    assert "--rebuild-env" in items["package six"].why
    items = {item.what: item for item in plan(run, wish=Wish(is_rebuilt=True)).items}
    assert items["packages"].state == "restorable"
    assert "package six" not in items

    replay(run, base=base, rebuild_env=True)
    replay(run, base=base, rebuild_env=True)
    first, again, cached = (json.loads(line) for line in out.read_text().splitlines())
    assert (first[0], again[0], cached[0]) == ("1.15.0",) * 3
    assert first[1] == str(environment)
    assert again[1] == cached[1]
    assert Path(again[1]).parent == cache
    assert again[2], "it was recorded"
    (six,) = environment.glob("lib/*/site-packages/six-*.dist-info")
    assert six.name == "six-1.16.0.dist-info"

    with pytest.raises(NotReplayable, match=r"six==99\.99 cannot be had.*uv says"):
        rebuild(altered(run, six="99.99"))
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1


@needs_index
def test_a_program_that_records_itself_finds_manifest_there(
    environment: Path,
    cache: Path,
    script: Callable[[str, str], Path],
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    checkout: Path,
) -> None:
    install(environment, "xxhash")
    script("program.py", f"import manifest\nmanifest.record()\n{PROGRAM}")
    monkeypatch.setenv("PYTHONPATH", str(checkout))
    command = [str(environment / "bin" / "python"), "program.py", str(tmp_path / "said")]
    subprocess.run(command, check=True)
    monkeypatch.delenv("PYTHONPATH")
    (run,) = (RunDirectory(path) for path in (base / "runs").iterdir())
    replay(run, base=base, rebuild_env=True)
    assert len((tmp_path / "said").read_text().splitlines()) == 2


def recorded(run: RunDirectory, packages: dict[str, str], origins: dict[str, object]) -> Recorded:
    manifest = Manifest.model_validate(run.document())
    environment = {**manifest.sections["environment"], "packages.origins": origins}
    sections = {**manifest.sections, "packages": packages, "environment": environment}
    return read(manifest.model_copy(update={"sections": sections}))


@pytest.fixture
def run(script: Callable[[str, str], Path], base: Path) -> RunDirectory:
    script("program.py", "pass\n")
    return launch([sys.executable, "program.py"], base=base).run


def test_packages_are_named_by_version_commit_or_digest(run: RunDirectory, project: Path) -> None:
    packages = dict.fromkeys(("a", "b", "c", "d", "manifest-replay"), "1.0")
    origins: dict[str, object] = {
        "b": {"url": "https://example.org/b.git", "commit": "1" * 40},
        "c": {"url": "https://example.org/c.whl", "digest": "sha256:" + "2" * 64},
        "d": {"url": f"file://{project}", "editable": True},
    }
    assert requirements(recorded(run, packages, origins)) == [
        "a==1.0",
        f"b @ git+https://example.org/b.git@{'1' * 40}",
        f"c @ https://example.org/c.whl#sha256={'2' * 64}",
    ]


@pytest.mark.parametrize(
    ("name", "version", "origin"),
    [
        ("a\n--index-url=https://evil", "1", {}),
        ("-r", "1", {}),
        ("a", "1\n--extra-index-url https://evil", {}),
        ("a", "1 ; python_version > '3'", {}),
        ("a", "@ https://evil", {}),
        ("a", "1", {"url": "https://evil\n--pre", "commit": "1" * 40}),
        ("a", "1", {"url": "https://evil", "commit": "main"}),
        ("a", "1", {"url": "ext::sh -c evil", "commit": "1" * 40}),
        ("a", "1", {"url": "https://evil/${SECRET}", "commit": "1" * 40}),
        ("a", "1", {"url": "file:///elsewhere", "editable": True}),
    ],
)
def test_what_cannot_be_named_safely_is_refused_by_name(
    name: str, version: str, origin: dict[str, object], run: RunDirectory
) -> None:
    with pytest.raises(NotReplayable, match=f"package {name[:1]}"):
        requirements(recorded(run, {name: version}, {name: origin}))


def test_without_uv_it_says_how_to_get_it(
    run: RunDirectory, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.setitem(sys.modules, "uv", None)
    with pytest.raises(NotReplayable, match=r"manifest-replay\[rebuild\]"):
        rebuild(recorded(run, {"six": "1.15.0"}, {}))
    assert [path for path in cache.iterdir() if path.is_dir()] == []
