"""A run as a Process Run Crate: the library reads it, and the archive in it is the run's own."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from rocrate.rocrate import ROCrate

from manifest.models import Manifest
from manifest.recorded import read
from manifest.rundir import RunDirectory
from manifest_client.archives import packed, unpack
from manifest_client.crates import PROFILE, crated

ID = "01990000-0000-7000-8000-000000000001"


@pytest.fixture
def golden(tmp_path: Path, checkout: Path) -> RunDirectory:
    """A run that a released version wrote, with a source file and a redacted argument."""
    path = tmp_path / "there" / "runs" / ID
    shutil.copytree(checkout / "tests/manifest/golden/schema-1" / ID, path)
    return RunDirectory(path)


def crate_of(run: RunDirectory) -> bytes:
    manifest = Manifest.model_validate(run.document())
    return b"".join(crated(read(manifest), manifest, run))


@pytest.fixture
def crate(golden: RunDirectory, tmp_path: Path) -> Path:
    """The crate, unzipped."""
    path, folder = tmp_path / "crate.zip", tmp_path / "crate"
    path.write_bytes(crate_of(golden))
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        file.extractall(folder)
    return folder


def test_the_library_reads_it_as_a_process_run_crate(crate: Path) -> None:
    found = ROCrate(crate)
    profile = found.root_dataset["conformsTo"]
    assert profile.id == PROFILE
    assert found.root_dataset["datePublished"] is not None
    assert found.root_dataset["license"]["name"] == "No licence is stated"
    action = found.root_dataset["mentions"]
    assert action.type == "CreateAction"
    assert action["instrument"].type == "SoftwareApplication"
    assert action["endTime"] > action["startTime"]
    assert action["result"].id == "run.tar"
    assert {each.id for each in action["object"]} == {"requirements.txt", "source/train.py"}
    files = {each.id for each in found.get_by_type("File")}
    assert files == {"run.tar", "requirements.txt", "source/train.py"}
    assert all((crate / name).is_file() for name in files)


def test_everything_that_is_referred_to_is_described(crate: Path) -> None:
    graph = json.loads((crate / "ro-crate-metadata.json").read_text())["@graph"]
    known = {entity["@id"] for entity in graph}
    outside = ("https://w3id.org/ro/crate/", "http://schema.org/")
    referred = {
        value["@id"]
        for entity in graph
        for told in entity.values()
        for value in (told if isinstance(told, list) else [told])
        if isinstance(value, dict)
    }
    assert {name for name in referred - known if not name.startswith(outside)} == set()
    assert len(known) == len(graph)


def test_the_archive_in_it_is_that_of_the_run(
    crate: Path, golden: RunDirectory, tmp_path: Path
) -> None:
    assert (crate / "run.tar").read_bytes() == b"".join(packed(golden))
    taken = unpack(crate / "run.tar", tmp_path / "here")
    assert taken.run.document() == golden.document()


def test_the_same_run_gives_the_same_crate(golden: RunDirectory) -> None:
    assert crate_of(golden) == crate_of(golden)
