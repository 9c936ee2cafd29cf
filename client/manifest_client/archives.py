"""A run in one file, to be taken in elsewhere: the same run gives the same bytes.

A plain tar: ``index.json``, which names every other member with size and digest, then those in the
order of their names. Nothing is compressed: no two builds of a compressor need give the same bytes,
and nothing can unfold to more than was sent. Each header is the one that the index implies, byte
for byte, so that links, devices, paths, repetitions and bytes between the members cannot be said.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from manifest.blobs import blobs_of
from manifest.canonical import Digest, canonical_bytes, checked_digest
from manifest.errors import DamagedRun, DigestMismatch, ManifestError, NewerSchema
from manifest.identity import is_run_id
from manifest.journal import without_waiting
from manifest.models import Manifest, Verdict
from manifest.rundir import RunDirectory
from manifest.sealing import read_sealed
from manifest.trail import Trail
from manifest_client.arriving import PROCESS, drafted, settle, write_origin
from manifest_client.contents import beside
from manifest_client.reading import first_fault

FORMAT: Final = 1
"""The form of archives that this version writes, and the newest it reads."""

_INDEX: Final = "index.json"
_MANIFEST: Final = "manifest.json"
_VERDICT: Final = "verdict.json"
_BLOB: Final = re.compile(r"blobs/([0-9a-f]{2})/(\1[0-9a-f]{62})")
_TRAIL: Final = re.compile(rf"trail/({PROCESS.pattern})/([a-z]{{1,20}})")
_BLOCK_BYTES: Final = 512
_END: Final = bytes(2 * _BLOCK_BYTES)
_PORTION_BYTES: Final = 1 << 20
_MOST_INDEX_BYTES: Final = 64 << 20
_MOST_DOCUMENT_BYTES: Final = 256 << 20
_MOST_MEMBER_BYTES: Final = 8**11 - 1  # what a header of tar can say
_MOST_MEMBERS: Final = 100_000


class ArchiveInvalid(ManifestError):
    """A file that is no archive of a run, or not as it was written."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(
            f"{where} is not taken in: {reason}. Nothing of it was kept; ask for it again from "
            "whoever made it with `manifest export --format archive`."
        )


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of taking in an archive."""

    run: RunDirectory
    is_new: bool
    """Whether it was not there before."""


def _named(name: str) -> str:
    if name not in (_MANIFEST, _VERDICT) and not _BLOB.fullmatch(name) and not _trail(name):
        raise ValueError(f"{name[:100]!r} is no member of an archive")
    return name


def _trail(name: str) -> re.Match[str] | None:
    return _TRAIL.fullmatch(name)


class _Member(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    size: int = Field(ge=0, le=_MOST_MEMBER_BYTES)
    sha256: Annotated[Digest, AfterValidator(checked_digest)]


class _Index(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1]
    run: str
    digest: Annotated[Digest, AfterValidator(checked_digest)]
    """Of the sealed manifest, as it says itself."""
    members: dict[Annotated[str, AfterValidator(_named)], _Member] = Field(max_length=_MOST_MEMBERS)

    def encoded(self) -> bytes:
        return canonical_bytes(self.model_dump(mode="json")) + b"\n"


def packed(run: RunDirectory) -> Iterator[bytes]:
    """The archive of a run, piece by piece.

    Raises:
        DamagedRun: The run goes on, or cannot be read.
        ArchiveInvalid: It holds what no archive can: names or sizes that are far too long.
    """
    document = run.seal()
    paths = _paths(run, Manifest.model_validate(document))
    try:
        index = _Index(
            format=FORMAT,
            run=run.id,
            digest=document["digest"],
            members={name: _measured(paths[name]) for name in sorted(paths)},
        )
    except ValidationError as error:
        raise ArchiveInvalid(str(run.path), first_fault(error)) from error
    yield from _member(_INDEX, index.encoded())
    for name, member in index.members.items():
        yield _header(name, member.size)
        yield from _pieces(paths[name], member)
        yield _padding(member.size)
    yield _END


def unpack(archive: Path, base: Path) -> Imported:
    """Take in an archive as a run directory like any other, which says that it came from elsewhere.

    Args:
        archive: Not trusted.
        base: The folder that keeps runs.

    Raises:
        ArchiveInvalid: It is no archive, or was changed or cut; nothing of it is kept.
        DamagedRun: What it holds is no run, or another run is here under the same id.
        NewerSchema: A newer Manifest recorded it.
    """
    with _opened(archive) as file:
        index = _read_index(file, archive.name)
        run = RunDirectory(base / "runs" / index.run)
        if run.path.is_dir():
            _check_same(run, index, archive.name)
            return Imported(run, is_new=False)
        with drafted(base, index.run) as draft:
            for name, member in index.members.items():
                _take(file, name, member, _place(draft, name), archive.name)
            if file.read(len(_END) + 1) != _END:
                raise ArchiveInvalid(archive.name, "it does not end where its index says")
            write_origin(draft, _checked(draft, index, archive.name))
            draft.mark_as_imported(archive.name)
            return Imported(settle(draft, base), is_new=True)


def _paths(run: RunDirectory, manifest: Manifest) -> dict[str, Path]:
    """Where the members of an archive lie, by name; a blob that was not kept is none."""
    found = {_MANIFEST: run.path / _MANIFEST}
    if run.verdict() is not None:
        found[_VERDICT] = run.path / _VERDICT
    for digest in blobs_of(manifest):
        name = _blob_name(digest)
        if (run.path / name).is_file():
            found[name] = run.path / name
    for process, rows in run.trail_paths().items():
        files = {"bin": rows, **beside(rows)}
        found |= {f"trail/{process}/{suffix}": path for suffix, path in files.items()}
    return found


def _blob_name(digest: str) -> str:
    digits = digest.removeprefix("sha256:")
    return f"blobs/{digits[:2]}/{digits}"


def _place(run: RunDirectory, name: str) -> Path:
    trail = _trail(name)
    return run.path / name if trail is None else run.path / "trail" / f"{trail[1]}.{trail[2]}"


def _measured(path: Path) -> _Member:
    with path.open("rb") as file:
        digits = hashlib.file_digest(file, "sha256").hexdigest()
        return _Member(size=file.tell(), sha256=Digest(f"sha256:{digits}"))


def _pieces(path: Path, member: _Member) -> Iterator[bytes]:
    left = member.size
    with path.open("rb") as file:
        while left and (piece := file.read(min(left, _PORTION_BYTES))):
            left -= len(piece)
            yield piece
    if left:
        raise DamagedRun(str(path), "it became shorter while it was read")


def _member(name: str, content: bytes) -> Iterator[bytes]:
    yield _header(name, len(content))
    yield content
    yield _padding(len(content))


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf(tarfile.USTAR_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK_BYTES)


@contextmanager
def _opened(archive: Path) -> Iterator[BinaryIO]:
    with open(archive, "rb", opener=without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ArchiveInvalid(archive.name, "it is no regular file")
        yield file


def _read_index(file: BinaryIO, where: str) -> _Index:
    header = file.read(_BLOCK_BYTES)
    try:
        size = tarfile.TarInfo.frombuf(header, "utf-8", "strict").size
    except (tarfile.HeaderError, ValueError):
        raise ArchiveInvalid(where, "it is no archive of a run") from None
    if not 0 <= size <= _MOST_INDEX_BYTES or header != _header(_INDEX, size):
        raise ArchiveInvalid(where, f"it is no archive of a run, which begins with {_INDEX}")
    data = file.read(size)
    try:
        document = json.loads(data)
        if isinstance(document, dict) and _is_newer(document.get("format")):
            raise NewerSchema(document["format"], FORMAT, where)
        index = _Index.model_validate(document)
    except ValidationError as error:
        raise ArchiveInvalid(where, f"its index: {first_fault(error)}") from None
    except (ValueError, RecursionError):
        raise ArchiveInvalid(where, "its index cannot be read") from None
    if index.encoded() != data or file.read(-size % _BLOCK_BYTES) != _padding(size):
        raise ArchiveInvalid(where, "its index is not in its one form")
    if not is_run_id(index.run) or _MANIFEST not in index.members:
        raise ArchiveInvalid(where, "its index names no run")
    return index


def _is_newer(found: object) -> bool:
    return isinstance(found, int) and found > FORMAT


def _check_same(run: RunDirectory, index: _Index, where: str) -> None:
    known = run.seal().get("digest")
    if known != index.digest:
        raise ArchiveInvalid(
            where,
            f"another run is here under its id, {run.id}: expected {known}, found {index.digest}",
        )


def _take(file: BinaryIO, name: str, member: _Member, path: Path, where: str) -> None:
    if file.read(_BLOCK_BYTES) != _header(name, member.size):
        raise ArchiveInvalid(where, f"expected {name} of {member.size} bytes, found something else")
    path.parent.mkdir(exist_ok=True)
    digest, left = hashlib.sha256(), member.size
    with path.open("xb") as taken:
        while left and (piece := file.read(min(left, _PORTION_BYTES))):
            left -= len(piece)
            digest.update(piece)
            taken.write(piece)
    if left or file.read(-member.size % _BLOCK_BYTES) != _padding(member.size):
        raise ArchiveInvalid(where, f"it was cut within {name}")
    if member.sha256 != f"sha256:{digest.hexdigest()}":
        raise DigestMismatch(member.sha256, f"sha256:{digest.hexdigest()}", f"{where}: {name}")


def _checked(draft: RunDirectory, index: _Index, where: str) -> Manifest:
    """The manifest of what was taken in, if all of it belongs together."""
    if index.members[_MANIFEST].size > _MOST_DOCUMENT_BYTES:
        raise ArchiveInvalid(where, f"its manifest is larger than {_MOST_DOCUMENT_BYTES} bytes")
    data = (draft.path / _MANIFEST).read_bytes()
    document = read_sealed(data, where)
    try:
        manifest = Manifest.model_validate(document)
        if _VERDICT in index.members:
            Verdict.model_validate(draft.verdict())
    except ValidationError as error:
        raise DamagedRun(where, first_fault(error)) from None
    if (manifest.id, manifest.digest) != (index.run, index.digest):
        raise ArchiveInvalid(where, "its manifest is of another run than its index says")
    if canonical_bytes(document) + b"\n" != data:
        raise ArchiveInvalid(where, "its manifest is not in its one form")
    _check_blobs(manifest, index, where)
    _check_trails(draft, manifest, index, where)
    return manifest


def _check_blobs(manifest: Manifest, index: _Index, where: str) -> None:
    wanted = {_blob_name(digest): digest for digest in blobs_of(manifest)}
    for name, member in index.members.items():
        if name.startswith("blobs/") and wanted.get(name) != member.sha256:
            raise ArchiveInvalid(where, f"{name} is no blob that its manifest refers to")


def _check_trails(draft: RunDirectory, manifest: Manifest, index: _Index, where: str) -> None:
    for name in index.members:
        trail = _trail(name)
        if trail is None:
            continue
        process = manifest.processes.get(trail[1])
        if f"trail/{trail[1]}/bin" not in index.members:
            raise ArchiveInvalid(where, f"{name} lies beside no trail")
        if trail[2] != "bin" or process is None or process.trail is None:
            continue
        found = Trail.open(_place(draft, name)).steps
        if found != process.trail.steps:
            raise ArchiveInvalid(
                where, f"{name}: expected {process.trail.steps} steps, found {found}"
            )
