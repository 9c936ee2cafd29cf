"""The source tree: where packages begin, and what its files never say."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from pathlib import Path

import pytest

PACKAGES = {
    "manifest": "manifest",
    "manifest_server": "server/manifest_server",
    "manifest_migrations": "alembic/manifest_migrations",
    "manifest_client": "client/manifest_client",
}


def tracked_files(checkout: Path) -> list[Path]:
    """Every file that is, or would be, committed."""
    if not (checkout / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=checkout,
        capture_output=True,
        check=True,
    ).stdout
    files = [checkout / os.fsdecode(name) for name in listed.split(b"\0") if name]
    return [file for file in files if file.is_file()]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_stands_where_it_is_expected_and_is_typed(checkout: Path, package: str) -> None:
    folder = checkout / PACKAGES[package]
    assert (folder / "__init__.py").is_file()
    assert (folder / "py.typed").is_file()


@pytest.mark.parametrize("folder", ["server", "client", "alembic", "tests", "examples"])
def test_a_folder_around_packages_is_not_one_itself(checkout: Path, folder: str) -> None:
    assert not (checkout / folder / "__init__.py").exists()


def test_no_file_names_a_path_of_the_machine_it_was_written_on(checkout: Path) -> None:
    home = pwd.getpwuid(os.getuid()).pw_dir
    places = {"/work", "/root", home, str(checkout)} - {"/"}
    # Not in the middle of a longer path, which is an invented one.
    named = re.compile(rf"(?<![\w.~/-])({'|'.join(map(re.escape, places))})/".encode())
    found = {
        str(file.relative_to(checkout)): match[0].decode()
        for file in tracked_files(checkout)
        if (match := named.search(file.read_bytes()))
    }
    assert found == {}
