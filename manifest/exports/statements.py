"""A run as an in-toto statement with SLSA provenance: what made these files, for others to sign."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from manifest.canonical import digest_bytes
from manifest.consent import stranger
from manifest.exports.scripts import given_variables
from manifest.models import Manifest
from manifest.needs import program
from manifest.rebuilding import named, python_version
from manifest.recorded import FileFacts, Recorded
from manifest.rundir import RunDirectory

STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "pkg:pypi/manifest-replay#run/v1"
"""How to read the parameters: as `docs/exports.md` says."""
REDACTED: Final = "[redacted]"


def statement(recorded: Recorded, manifest: Manifest, run: RunDirectory) -> dict[str, Any]:
    """The statement, unsigned.

    Its subjects are the sealed manifest and, of a run that was recorded here, the outputs that lie
    where it wrote them with the size and time that it recorded; their digests are made now.
    """
    subjects = [_subject("manifest.json", digest_bytes((run.path / "manifest.json").read_bytes()))]
    if stranger(run) is None:
        subjects += _outputs(recorded, manifest)
    return {
        "_type": STATEMENT,
        "subject": subjects,
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": _parameters(recorded),
                "internalParameters": {"manifest": manifest.digest, "status": manifest.status},
                "resolvedDependencies": list(_dependencies(recorded)),
            },
            "runDetails": {
                "builder": {"id": "pkg:pypi/manifest-replay"},
                "metadata": {
                    "invocationId": manifest.id,
                    "startedOn": manifest.started_at,
                    **({"finishedOn": manifest.ended_at} if manifest.ended_at else {}),
                },
            },
        },
    }


def _parameters(recorded: Recorded) -> dict[str, Any]:
    argv = recorded.command.argv
    return {
        "command": [word if isinstance(word, str) else REDACTED for word in argv],
        "folder": recorded.command.cwd,
        "variables": {k: v for k, v in given_variables(recorded).items() if v is not None},
        "python": python_version(recorded),
    }


def _dependencies(recorded: Recorded) -> Iterator[dict[str, Any]]:
    commit, remote = recorded.code.get("git.commit"), recorded.code.get("git.remote")
    if isinstance(commit, str):
        where = f"git+{remote}@{commit}" if isinstance(remote, str) else f"git:{commit}"
        yield {"uri": where, "digest": {"gitCommit": commit}}
    for path, digest in sorted(recorded.sources.items()):
        yield _subject(path, digest)
    for path, facts in sorted(recorded.inputs.items()):
        if facts.blob is not None and not recorded.is_own(facts):
            yield _subject(path, facts.blob)
    for each in named(recorded):
        name, equals, version = each.line.partition("==")
        if equals:
            yield {"uri": f"pkg:pypi/{name}@{version.replace('+', '%2B')}"}
        elif each.line:
            yield {"uri": each.line.partition(" @ ")[2], "name": each.name}


def _outputs(recorded: Recorded, manifest: Manifest) -> Iterator[dict[str, Any]]:
    for path, told in sorted(manifest.sections.get("outputs", {}).items()):
        try:
            facts = FileFacts.model_validate(told)
        except ValidationError:
            continue
        here = Path(recorded.here(path))
        if program.changed(str(here), facts) is None:
            with here.open("rb") as file:
                digits = hashlib.file_digest(file, "sha256").hexdigest()
            yield _subject(path, f"sha256:{digits}")


def _subject(name: str, digest: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}
