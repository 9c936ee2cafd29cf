"""A run as an in-toto statement: the fields of both specifications, and digests that hold."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from manifest.exports.statements import statement

if TYPE_CHECKING:
    from tests.manifest.exports.conftest import Exported


@pytest.fixture
def made(exported: Exported) -> dict[str, Any]:
    return statement(exported.recorded, exported.manifest, exported.run)


def test_it_has_the_fields_of_the_specifications(made: dict[str, Any], exported: Exported) -> None:
    assert made.keys() == {"_type", "subject", "predicateType", "predicate"}
    assert made["_type"] == "https://in-toto.io/Statement/v1"
    assert made["predicateType"] == "https://slsa.dev/provenance/v1"
    names = [subject["name"] for subject in made["subject"]]
    assert len(set(names)) == len(names) > 0
    definition, details = (made["predicate"][key] for key in ("buildDefinition", "runDetails"))
    assert re.fullmatch(r"[a-z][a-z0-9+.-]*:\S+", definition["buildType"])
    assert isinstance(definition["externalParameters"], dict)
    assert re.fullmatch(r"[a-z][a-z0-9+.-]*:\S+", details["builder"]["id"])
    for each in [*made["subject"], *definition["resolvedDependencies"]]:
        assert each.keys() <= {"name", "uri", "digest"}
        assert each.keys() & {"uri", "digest"}
        for algorithm, digits in each.get("digest", {}).items():
            assert re.fullmatch({"sha256": "[0-9a-f]{64}"}.get(algorithm, "[0-9a-f]{40}"), digits)
    metadata = details["metadata"]
    assert metadata["invocationId"] == exported.run.id
    for moment in (metadata["startedOn"], metadata["finishedOn"]):
        assert moment.endswith("Z")
        datetime.fromisoformat(moment)
    json.dumps(made, allow_nan=False)


def test_its_subjects_are_the_manifest_and_what_the_run_wrote(
    made: dict[str, Any], exported: Exported
) -> None:
    files = [exported.run.path / "manifest.json", exported.project / "model.bin"]
    digests = {subject["name"]: subject["digest"]["sha256"] for subject in made["subject"]}
    expected = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    assert digests == {"manifest.json": expected[0], str(files[1]): expected[1]}


def test_an_output_that_was_changed_since_is_no_subject(exported: Exported) -> None:
    model = exported.project / "model.bin"
    manifest = exported.manifest
    outputs = {str(model): {**manifest.sections["outputs"][str(model)], "mtime_us": 1}}
    changed = manifest.model_copy(update={"sections": {**manifest.sections, "outputs": outputs}})
    made = statement(exported.recorded, changed, exported.run)
    assert [subject["name"] for subject in made["subject"]] == ["manifest.json"]


def test_nothing_is_read_here_for_a_run_that_came_from_elsewhere(exported: Exported) -> None:
    exported.run.mark_as_imported("run.tar")
    try:
        made = statement(exported.recorded, exported.manifest, exported.run)
    finally:
        (exported.run.path / "pulled.json").unlink()
    assert [subject["name"] for subject in made["subject"]] == ["manifest.json"]


def test_it_says_what_the_run_was_made_of(made: dict[str, Any], exported: Exported) -> None:
    definition = made["predicate"]["buildDefinition"]
    command = definition["externalParameters"]["command"]
    assert command[1:] == ["train.py", "--lr", "0.1 $HOME", "--password", "[redacted]"]
    assert definition["externalParameters"]["variables"]["OMP_NUM_THREADS"] == "3"
    named = {each.get("name") for each in definition["resolvedDependencies"]}
    assert {"src/train.py", "src/parts.py", str(exported.project / "config.json")} <= named
    uris = {each.get("uri") for each in definition["resolvedDependencies"]}
    commit = exported.manifest.sections["code"]["git.commit"]
    assert f"git+{exported.project}@{commit}" in uris
    assert any(str(uri).startswith("pkg:pypi/pytest@") for uri in uris)
