"""Packages that run from a folder of their own: real repositories, installs as pip leaves them."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import manifest
from manifest.environment.editable import Editables, changed_sources
from manifest.environment.packages import capture_package_origins

Git = Callable[..., bytes]


@pytest.fixture
def library(tmp_path: Path, git: Git) -> Path:
    """A repository with a package in it."""
    folder = tmp_path / "a library"
    (folder / "src" / "tiny_lib").mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    (folder / "src" / "tiny_lib" / "__init__.py").write_text("scale = 1\n")
    (folder / "src" / "tiny_lib" / "extra.py").write_text("shift = 1\n")
    git(folder, "add", "-A")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


def install(site: Path, folder: Path, name: str = "tiny-lib") -> str:
    """What `pip install -e` leaves."""
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    origin = {"url": folder.as_uri(), "dir_info": {"editable": True}}
    (info / "direct_url.json").write_text(json.dumps(origin))
    return str(site)


@pytest.fixture
def site(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where it is installed; nothing of it stays imported."""
    monkeypatch.syspath_prepend(str(library / "src"))
    for name in ("tiny_lib", "tiny_lib.extra"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return install(tmp_path / "site", library)


def editables(site: str, root: Path) -> Editables:
    return Editables(capture_package_origins([site]), root)


def test_the_repository_of_a_package_is_described(
    site: str, library: Path, tmp_path: Path, git: Git
) -> None:
    found = editables(site, tmp_path / "project").repositories()["tiny-lib"]
    assert found["commit"] == git(library, "rev-parse", "HEAD").decode()
    assert found["tree"] == git(library, "rev-parse", "HEAD^{tree}").decode()
    assert found["dirty"] is False
    (library / "src" / "tiny_lib" / "extra.py").write_text("shift = 2\n")
    changed = editables(site, tmp_path / "project").repositories()["tiny-lib"]
    assert (changed["commit"], changed["dirty"]) == (found["commit"], True)
    assert changed["tree"] != found["tree"]


def test_what_pip_installs_for_editing_is_found(library: Path, tmp_path: Path) -> None:
    (library / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "Tiny.Lib"\nversion = "1.0"\n'
    )
    quietly = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--no-warn-conflicts")
    pip = [sys.executable, "-m", "pip", "install", *quietly, "--disable-pip-version-check"]
    subprocess.run([*pip, "--prefix", tmp_path / "prefix", "-e", library], check=True)
    (site,) = (tmp_path / "prefix").glob("lib*/python3*/site-packages")
    found = editables(str(site), tmp_path / "project")
    assert found.folders == {"tiny-lib": str(library)}
    assert set(found.repositories()["tiny-lib"]) == {"commit", "tree", "dirty"}


def test_a_package_outside_of_any_repository_has_no_state(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    site = install(tmp_path / "site", tmp_path / "plain")
    assert editables(site, tmp_path / "project").repositories() == {}


@pytest.mark.parametrize("below", ["", "packages/inner"])
def test_the_project_itself_is_not_captured_twice(site: str, library: Path, below: str) -> None:
    (library / below).mkdir(parents=True, exist_ok=True)
    site = install(library.parent / "other", library / below)
    assert editables(site, library).folders == {}


@pytest.mark.parametrize(
    "origin",
    [
        None,
        [],
        {"editable": True},
        {"editable": True, "url": "https://host/a"},
        {"editable": True, "url": "file://host/a"},
        {"url": "file:///a"},
        {"editable": True, "url": Path(manifest.__file__).parents[1].as_uri()},
    ],
)
def test_what_does_not_run_from_a_folder_here_is_passed_over(origin: Any, tmp_path: Path) -> None:
    assert Editables({"a": origin}, tmp_path).folders == {}


def test_repositories_are_few_and_each_is_asked_once(tmp_path: Path, git: Git) -> None:
    for number in range(6):
        for name in (f"one{number}", f"two{number}"):
            (tmp_path / f"r{number}" / name).mkdir(parents=True)
            install(tmp_path / "site", tmp_path / f"r{number}" / name, name)
        git(tmp_path / f"r{number}", "init", "--quiet")
        git(tmp_path / f"r{number}", "commit", "--quiet", "--allow-empty", "-m", "first")
    found = editables(str(tmp_path / "site"), tmp_path / "project").repositories()
    assert sorted(found) == ["one0", "one1", "one2", "one3"]


def test_source_is_told_once_and_only_what_was_imported(
    site: str, library: Path, tmp_path: Path
) -> None:
    found = editables(site, tmp_path / "project")
    assert found.sources() == {}
    importlib.import_module("tiny_lib")

    first = found.sources()
    assert list(first) == ["tiny-lib"]
    assert list(first["tiny-lib"]) == ["src/tiny_lib/__init__.py"]
    importlib.import_module("tiny_lib.extra")

    (library / "src" / "tiny_lib" / "__init__.py").write_text("scale = 3\n")
    assert list(found.sources()["tiny-lib"]) == ["src/tiny_lib/extra.py"]


def test_source_that_changed_since_is_named(
    site: str, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    importlib.import_module("tiny_lib")

    project = tmp_path / "project"
    recorded = editables(site, project).sources()
    assert changed_sources(recorded, [site], root=project) == {}
    (library / "src" / "tiny_lib" / "extra.py").write_text("shift = 9\n")
    assert changed_sources(recorded, [site], root=project) == {}, "the run had not imported it"
    (library / "src" / "tiny_lib" / "__init__.py").write_text("scale = 9\n")
    assert changed_sources(recorded, [site], root=project) == {
        "tiny-lib": "src/tiny_lib/__init__.py is another than the run imported"
    }
    (library / "src" / "tiny_lib" / "__init__.py").unlink()
    assert "is another" in changed_sources(recorded, [site], root=project)["tiny-lib"]
    assert changed_sources(recorded, [], root=project) == {
        "tiny-lib": "ran from a folder of its own, and is not installed like that here"
    }


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "src/../../secret", "link"])
def test_a_recorded_path_does_not_lead_out_of_the_folder(
    site: str, library: Path, tmp_path: Path, path: str
) -> None:
    (tmp_path / "secret").write_text("x")
    os.symlink(tmp_path / "secret", library / "link")
    told = changed_sources({"tiny-lib": {path: "sha256:0"}}, [site], root=tmp_path / "project")
    assert "leaves its folder" in told["tiny-lib"]
