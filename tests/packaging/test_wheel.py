"""The wheel: what is in it, and what it says of itself."""

from __future__ import annotations

import os
import tomllib
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

PACKAGES = {
    "manifest": "manifest",
    "manifest_server": "server/manifest_server",
    "manifest_migrations": "alembic/manifest_migrations",
    "manifest_client": "client/manifest_client",
}


@pytest.fixture(scope="module")
def files(wheel: Path) -> set[str]:
    """The names of all files in the wheel, its own metadata aside."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(archive.read(name))


@pytest.fixture(scope="module")
def version(checkout: Path) -> str:
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def package_files(checkout: Path) -> Iterator[str]:
    for package, folder in PACKAGES.items():
        for place, _, names in os.walk(checkout / folder, followlinks=True):
            inside = Path(place).relative_to(checkout / folder)
            files = [Path(package) / inside / name for name in names]
            yield from (str(file) for file in files if not _is_left_out(file))


def _is_left_out(file: Path) -> bool:
    is_picture_of_readme = file.parent.name == "guide" and file.suffix in (".png", ".svg")
    return "__pycache__" in file.parts or is_picture_of_readme


def test_the_wheel_holds_every_file_of_the_four_packages_and_nothing_else(
    checkout: Path, files: set[str]
) -> None:
    assert files == set(package_files(checkout))


@pytest.mark.parametrize("package", PACKAGES)
def test_the_wheel_says_that_its_packages_are_typed(files: set[str], package: str) -> None:
    assert f"{package}/py.typed" in files


@pytest.mark.parametrize(
    "needed",
    [
        "manifest/bootstrap/sitecustomize.py",
        "manifest_migrations/env.py",
        "manifest_migrations/script.py.mako",
    ],
)
def test_the_wheel_holds_what_no_import_would_miss(files: set[str], needed: str) -> None:
    assert needed in files


def test_the_wheel_holds_the_migrations_and_the_catalogue(files: set[str]) -> None:
    assert any(name.startswith("manifest_migrations/versions/") for name in files)
    assert any(name.startswith("manifest/") and name.endswith(".toml") for name in files)


def test_the_metadata_name_the_version_and_the_licence(metadata: Message, version: str) -> None:
    assert metadata["Name"] == "manifest-replay"
    assert metadata["Version"] == version
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["License-File"] == "LICENSE"


def test_installing_brings_no_torch_and_no_numpy(metadata: Message) -> None:
    required = {str(line).split(">")[0] for line in metadata.get_all("Requires-Dist", [])}
    assert "xxhash" in required
    assert required & {"torch", "numpy", "scikit-learn"} == set()
