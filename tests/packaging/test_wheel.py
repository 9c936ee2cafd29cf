"""The wheel: built from the source archive, installed elsewhere, used."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
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


def run(*command: str | Path, cwd: Path) -> str:
    """The output of a command that must succeed."""
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as an index would get it: from the source archive, not from the checkout."""
    out = tmp_path_factory.mktemp("dist")
    # Away from the checkout, where a folder `build` would hide the tool of that name.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, checkout, cwd=out)
    (built,) = out.glob("*.whl")
    return built


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


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment into which the wheel was installed.

    What the wheel depends on is borrowed from this environment through a `.pth` file: the paths in
    such a file are not searched for further ones, so the editable project is not borrowed.
    """
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, with_pip=False, symlinks=True)
    bin_folder = home / "bin"
    pip = (sys.executable, "-m", "pip", "--python", bin_folder / "python")
    run(*pip, "install", "--no-deps", "--no-index", "--quiet", wheel, cwd=home)
    (site_packages,) = home.glob("lib/python*/site-packages")
    (site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + os.linesep)
    return bin_folder


def package_files(checkout: Path) -> Iterator[str]:
    for package, folder in PACKAGES.items():
        for file in (checkout / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                yield f"{package}/{file.relative_to(checkout / folder).as_posix()}"


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


def test_the_installed_package_is_imported_from_its_own_place(
    programs: Path, tmp_path: Path
) -> None:
    show = "import manifest; print(manifest.__file__)"
    imported = run(programs / "python", "-c", show, cwd=tmp_path)
    assert Path(imported.strip()).is_relative_to(programs.parent)


def test_the_installed_command_tells_its_version(
    programs: Path, tmp_path: Path, version: str
) -> None:
    assert version in run(programs / "manifest", "--version", cwd=tmp_path)


def test_the_installed_command_lists_runs_in_an_empty_folder(
    programs: Path, tmp_path: Path
) -> None:
    run(programs / "manifest", "ls", cwd=tmp_path)


def test_the_installed_command_records_and_lists_a_run(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import random\nprint(random.random())\n")
    run(programs / "manifest", "run", "--", programs / "python", "train.py", cwd=tmp_path)
    assert "train.py" in run(programs / "manifest", "ls", cwd=tmp_path)
