"""Installed packages, as an import would find them."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
from pathlib import Path

import pytest

from manifest.environment.packages import capture_package_origins, capture_packages


def install(folder: Path, name: str, origin: object = None) -> None:
    (folder / name).mkdir(parents=True)
    if origin is not None:
        (folder / name / "direct_url.json").write_text(json.dumps(origin))


def test_names_and_versions_are_those_of_the_standard_library() -> None:
    expected: dict[str, str] = {}
    for found in importlib.metadata.distributions():
        expected.setdefault(re.sub(r"[-_.]+", "-", found.name).lower(), found.version)
    assert capture_packages(sys.path) == expected


def test_the_first_of_a_name_along_the_path_counts(tmp_path: Path) -> None:
    install(tmp_path / "a", "Some_Package-1.0.dist-info")
    install(tmp_path / "b", "some.package-2.0.dist-info")
    paths = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert capture_packages(paths) == {"some-package": "1.0"}
    assert capture_packages(paths[::-1]) == {"some-package": "2.0"}


def test_old_forms_are_read_and_left_overs_are_not(tmp_path: Path) -> None:
    install(tmp_path, "torch-2.13.0+cu130.dist-info")
    install(tmp_path, "old-1.2-py3.11.egg-info")
    install(tmp_path, "older-1.3-py3.11.egg")
    install(tmp_path, "developed.egg-info")
    (tmp_path / "developed.egg-info" / "PKG-INFO").write_text("Name: developed\nVersion: 0.4\n\n")
    (tmp_path / "distro-1.5.egg-info").write_text("")
    install(tmp_path, "~orch-2.0.0.dist-info")
    paths = [str(tmp_path), str(tmp_path / "missing"), str(tmp_path / "archive.zip")]
    assert capture_packages(paths) == {
        "torch": "2.13.0+cu130",
        "old": "1.2",
        "older": "1.3",
        "developed": "0.4",
        "distro": "1.5",
    }


def test_an_empty_entry_of_the_path_is_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "here-1.0.dist-info")
    monkeypatch.chdir(tmp_path)
    assert capture_packages([""]) == {"here": "1.0"}


def test_origins_name_what_did_not_come_from_an_index(tmp_path: Path) -> None:
    url = "https://user:pw@host/o/r.git"
    vcs = {"vcs": "git", "commit_id": "0a1b", "requested_revision": "main"}
    wheel = {"url": "file:///w/x.whl", "archive_info": {"hashes": {"sha256": "00ff"}}}
    install(tmp_path, "a-1.dist-info", {"url": url, "vcs_info": vcs})
    install(tmp_path, "b-1.dist-info", {"url": "file:///src/b", "dir_info": {"editable": True}})
    install(tmp_path, "c-1.dist-info", wheel)
    install(tmp_path, "d-1.dist-info")
    install(tmp_path, "e-1.dist-info", ["damaged"])
    assert capture_package_origins([str(tmp_path)]) == {
        "a": {"url": "https://host/o/r.git", "commit": "0a1b"},
        "b": {"url": "file:///src/b", "editable": True},
        "c": {"url": "file:///w/x.whl", "digest": "sha256:00ff"},
    }


def test_what_was_copied_from_a_folder_is_its_content(tmp_path: Path) -> None:
    origin = {"url": "file:///src/a", "dir_info": {}}

    def digest(site: str, of_module: str) -> object:
        install(tmp_path / site, "a-1.dist-info", origin)
        (tmp_path / site / "a-1.dist-info" / "RECORD").write_text(
            f"a/core.py,sha256={of_module},9\na/__pycache__/core.pyc,,\n../../bin/a,sha256={site},1\n"
            f"a-1.dist-info/RECORD,,\na-1.dist-info/REQUESTED,sha256={site},0\n"
        )
        return capture_package_origins([str(tmp_path / site)])["a"]["digest"]

    assert digest("one", "00") == digest("two", "00")
    assert digest("three", "01") != digest("one-again", "00")
