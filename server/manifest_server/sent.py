"""What was sent to be kept, as it came: whoever commits it reads it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from manifest.canonical import checked_digest
from manifest.errors import SectionsLacking
from manifest.models import Annotations
from manifest_server.annotating import Remark
from manifest_server.callers import Caller
from manifest_server.incoming import Incoming
from manifest_server.problems import Problem, faults_of
from manifest_server.sqlstore import SqlStore

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class SentRun:
    """A manifest, and who sends it."""

    run_id: str
    body: bytes = field(repr=False)
    caller: Caller

    def __call__(self, store: SqlStore) -> Incoming:
        """Read it.

        Raises:
            Problem: It is no manifest, another run's, or of a project that is not the caller's.
            DamagedRun: A section has no canonical form.
            SectionsLacking: Sections were left out that are not known.
        """
        with _invalid_told("manifest"):
            incoming = store.seen.read(self.body)
        manifest = incoming.manifest
        if manifest.id != self.run_id:
            detail = f"the address names {self.run_id}, the manifest {manifest.id}"
            raise Problem(422, "id-mismatch", detail)
        self.caller.check_project(manifest.project)
        return self._completed(incoming, store)

    def _completed(self, incoming: Incoming, store: SqlStore) -> Incoming:
        """Put the sections back that were left out."""
        wanted = incoming.left_out()
        if not wanted:
            return incoming
        for name, digest in wanted.items():
            _check_digest(name, digest)
        found = store.get_sections(wanted, project=self.caller.project)
        if lacking := sorted(wanted.keys() - found.keys()):
            raise SectionsLacking(lacking)
        return incoming.with_sections(found)


@dataclass(frozen=True, slots=True)
class SentRemark:
    """What somebody says of a run."""

    run_id: str
    body: bytes = field(repr=False)
    if_match: str | None
    """The ETag of the words that the sender has seen."""
    caller: Caller

    def __call__(self, _store: SqlStore) -> Remark:
        """Read it.

        Raises:
            Problem: These are no annotations, or nobody says of what they take the place.
        """
        said = parsed(Annotations, self.body, "annotations")
        said = said.model_copy(update={"version": _version(self.if_match)})
        change = self.caller.change("annotate run", self.run_id)
        return Remark(self.run_id, said, self.caller.name, change, self.caller.project)


def parsed(model: type[_Model], body: bytes, what: str) -> _Model:
    """Read a body.

    Raises:
        Problem: It is none of what is wanted; says where.
    """
    with _invalid_told(what):
        return model.model_validate_json(body)


def _version(if_match: str | None) -> int:
    """The version of the words that the client has seen."""
    if if_match is None:
        detail = "send If-Match with the ETag of the annotations that you have read"
        raise Problem(428, "if-match-missing", detail)
    version = if_match.strip('"')
    if not version.isascii() or not version.isdigit() or len(version) > 9:
        raise Problem(412, "annotations-changed", "no annotations ever had this ETag")
    return int(version)


def _check_digest(name: str, digest: str) -> None:
    try:
        checked_digest(digest)
    except ValueError as error:
        raise Problem(422, "manifest-invalid", f"the digest of {name[:80]!r}: {error}") from None


@contextmanager
def _invalid_told(what: str) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        detail = f"the body is no {what}"
        raise Problem(422, f"{what}-invalid", detail, faults=faults_of(error)) from None
