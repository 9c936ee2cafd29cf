"""A run directory: the whole truth of a run, on disk.

::

    <base>/salt                     what redacted values are digested with
    <base>/runs/<run id>/
        journal/run.jsonl       who made the run, from which entropy; how the program ended
        journal/<process>.jsonl what each process said
        trail/<process>.*       its fingerprints
        blobs/ab/cdef…          bytes under their SHA-256
        manifest.json           the fold of the journals, once the run is over
        verdict.json            beside it: what this replay showed
        delivered.json          what services have acknowledged of it
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from manifest.canonical import (
    SCHEMA,
    Digest,
    canonical_bytes,
    checked_digest,
    digest_bytes,
)
from manifest.errors import (
    AmbiguousReference,
    DamagedRun,
    DigestMismatch,
    NewerSchema,
    NotRecordable,
    RunNotFound,
)
from manifest.identity import is_run_id
from manifest.journal import Entry, Journal, entries, read_regular
from manifest.liveness import is_running
from manifest.sealing import read_sealed, seal_document

FOLDER = ".manifest"

_MISFITS = (
    AttributeError,
    LookupError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What entries that nobody of this project wrote can cause."""

_drafts = itertools.count()
"""Numbers the drafts of this process: its threads may write the same file at once."""

_urandom = os.urandom  # bound now: a run may pin `os.urandom` for the program


class RunDirectory:
    """One run on disk: made by the program that records, read by everything else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name

    @classmethod
    def create(cls, base: Path, run_id: str) -> RunDirectory:
        """Make the folders of a new run.

        Raises:
            NotRecordable: The disk is full or the folder may not be written.
        """
        path = base / "runs" / run_id
        try:
            for folder in ("journal", "trail", "blobs"):
                (path / folder).mkdir(parents=True)
            furnish(base)
        except OSError as error:
            raise NotRecordable(
                f"runs cannot be kept in {base}: {error.strerror or error}. "
                "Point MANIFEST_DIR to a folder that can be written."
            ) from error
        return cls(path)

    def salt(self) -> bytes:
        """What secrets are digested with: kept beside the runs, never in one or sent with one."""
        try:
            return (self.path.parent.parent / "salt").read_bytes()[:16]
        except OSError:
            return _urandom(16)

    def claim(self, process: str) -> tuple[str, Journal]:
        """Open the journal of a process, under a name of its own.

        A shell script may start several programs under one name: they become ``main``,
        ``main~1``, ``main~2`` in the order in which they start.
        """
        name = process
        attempt = 0
        while True:
            try:
                return name, Journal(self.path / "journal" / f"{name}.jsonl")
            except FileExistsError:
                attempt += 1
                name = f"{process}~{attempt}"

    def has_begun(self) -> bool:
        """Whether its first entry is there; what was killed before has recorded nothing."""
        try:
            return self.is_sealed() or bool(self.origin())
        except DamagedRun:
            return False

    def has(self, process: str) -> bool:
        """Whether a process of this name, or the run itself as ``run``, has a journal."""
        return (self.path / "journal" / f"{process}.jsonl").exists()

    def mark_as_pulled(self, url: str) -> None:
        """Write down which service the run was fetched from."""
        self._mark({"url": url})

    def mark_as_imported(self, archive: str) -> None:
        """Write down which archive the run was taken from."""
        self._mark({"archive": archive})

    def sender(self) -> str | None:
        """Who gave us a run that came from elsewhere; None for one that was recorded here."""
        try:
            found = json.loads((self.path / "pulled.json").read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            found = None
        told = found if isinstance(found, dict) else {}
        if "archive" in told:
            return f"someone who packed it into {told['archive']}"
        return f"someone who sent it to {told.get('url', 'a service')}"

    def has_process(self) -> bool:
        """Whether any process of the program has said anything."""
        return any(path.stem != "run" for path in (self.path / "journal").glob("*.jsonl"))

    def journals(self) -> dict[str, list[Entry]]:
        """The entries of every journal, by process; ``run`` is the run's own."""
        return {
            path.stem: list(entries(path)) for path in sorted((self.path / "journal").glob("*"))
        }

    def entries_of(self, process: str) -> list[Entry]:
        """The entries of one process; none if it said nothing."""
        return list(entries(self.path / "journal" / f"{process}.jsonl"))

    def origin(self) -> Entry:
        """The entry that made the run: its id, entropy and mode.

        Raises:
            DamagedRun: There is none.
        """
        for entry in self.entries_of("run"):
            if entry["kind"] == "run":
                return entry
        raise DamagedRun(str(self.path), "journal/run.jsonl does not begin with the run")

    def is_sealed(self) -> bool:
        """Whether the manifest is final."""
        return (self.path / "manifest.json").exists()

    def is_alive(self) -> bool:
        """Whether a process of this run may still write to it."""
        return any(
            is_running(entry)
            for journal in self.journals().values()
            for entry in journal
            if entry["kind"] in ("run", "process")
        )

    def document(self) -> dict[str, Any]:
        """The manifest as it is now: the sealed one, or the fold of the journals so far.

        Raises:
            NewerSchema: Written by a newer version.
            DamagedRun: Not readable as a run, or changed since it was sealed.
        """
        if self.is_sealed():
            return self._sealed()
        return self._folded(is_over=not self.is_alive())

    def seal(self) -> dict[str, Any]:
        """Write the final manifest; what is sealed already stays as it is.

        Raises:
            DamagedRun: A process of the run still writes.
        """
        if self.is_sealed():
            return self._sealed()
        if self.is_alive():
            raise DamagedRun(str(self.path), "the run is still going on")
        return self.write_manifest()

    def write_manifest(self) -> dict[str, Any]:
        """Seal without asking who is alive: for the last process itself, at its end."""
        document = self._folded(is_over=True)
        try:
            seal_document(document)
            data = canonical_bytes(document) + b"\n"
        except _MISFITS as error:
            raise DamagedRun(str(self.path), f"it cannot be sealed: {error!r}") from error
        try:
            _write_once(self.path / "manifest.json", data, is_durable=True)
        except FileExistsError:
            return self._sealed()
        return document

    def put_blob(self, data: bytes) -> Digest:
        """Keep bytes under their digest."""
        digest = digest_bytes(data)
        path = self._blob_path(digest)
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            with suppress(FileExistsError):  # another process kept the same bytes
                _write_once(path, data)
        return digest

    def drop_blob(self, digest: Digest) -> None:
        """Keep bytes no more."""
        self._blob_path(digest).unlink(missing_ok=True)

    def get_blob(self, digest: Digest) -> bytes:
        """The bytes under a digest.

        Raises:
            KeyError: This run does not hold them.
            DigestMismatch: They were changed.
        """
        path = self._blob_path(checked_digest(digest))
        try:
            data = read_regular(path)
        except FileNotFoundError:
            raise KeyError(digest) from None
        if digest_bytes(data) != digest:
            raise DigestMismatch(digest, digest_bytes(data), str(path))
        return data

    def verdict(self) -> dict[str, Any] | None:
        """What this replay showed, if it is one that ended."""
        try:
            found = json.loads(read_regular(self.path / "verdict.json"))
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def put_verdict(self, verdict: dict[str, Any]) -> None:
        """Keep what this replay showed."""
        path = self.path / "verdict.json"
        path.unlink(missing_ok=True)
        _write_once(path, canonical_bytes(verdict) + b"\n")

    def trail_path(self, process: str) -> Path:
        """Where the trail of a process lies."""
        return self.path / "trail" / f"{process}.bin"

    def trail_paths(self) -> dict[str, Path]:
        """Every trail of the run, by process."""
        found = sorted((self.path / "trail").glob("*.bin"))
        return {path.stem: path for path in found if _is_of_files(path)}

    def _mark(self, where_from: dict[str, str]) -> None:
        (self.path / "pulled.json").write_bytes(canonical_bytes(where_from) + b"\n")

    def _sealed(self) -> dict[str, Any]:
        path = self.path / "manifest.json"
        try:
            data = read_regular(path)
        except OSError as error:
            raise DamagedRun(str(path), str(error)) from error
        try:
            return read_sealed(data, str(path))
        except DamagedRun as error:
            raise DamagedRun(error.where, f"{error.reason}. {self._remedy()}") from None

    def _remedy(self) -> str:
        if self.sender() is not None:  # its journals tell only where it began
            return f"Delete {self.path} and take the run in again."
        return (
            "Put the recorded file back, or delete it and it is made again from the journals "
            "beside it."
        )

    def _folded(self, *, is_over: bool) -> dict[str, Any]:
        origin = self.origin()
        from manifest.folding import fold  # not needed by a process that only writes

        try:
            if origin.get("schema", 0) > SCHEMA:
                raise NewerSchema(origin["schema"], SCHEMA, str(self.path))
            return fold(self.journals(), self.trail_paths(), is_over=is_over)
        except _MISFITS as error:
            raise DamagedRun(str(self.path), f"its journals do not fit: {error!r}") from error

    def _blob_path(self, digest: Digest) -> Path:
        digits = digest.removeprefix("sha256:")
        return self.path / "blobs" / digits[:2] / digits


def find_base(start: Path | None = None) -> Path:
    """The folder that keeps runs: MANIFEST_DIR, else the nearest ``.manifest`` upward."""
    chosen = os.environ.get("MANIFEST_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute()
    here = (start or Path.cwd()).absolute()
    for folder in (here, *here.parents):
        if (folder / FOLDER).is_dir():
            return folder / FOLDER
    return here / FOLDER


def find_run(base: Path, reference: str) -> RunDirectory:
    """The run that is kept in `base` and has this id, or the only one whose id begins like this.

    Raises:
        RunNotFound: There is none.
        AmbiguousReference: There are several.
    """
    digits = reference.replace("-", "").lower()
    found = [run for run in run_directories(base) if run.id.replace("-", "").startswith(digits)]
    if not found or not digits:
        raise RunNotFound(reference, str(base))
    if len(found) > 1:
        raise AmbiguousReference(reference, [run.id for run in found])
    return found[0]


def run_directories(base: Path) -> list[RunDirectory]:
    """The runs kept in `base`, the newest first."""
    try:
        names = os.listdir(base / "runs")
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [
        RunDirectory(base / "runs" / name)
        for name in sorted(names, reverse=True)
        if is_run_id(name)
    ]


def find_blob(runs: Iterable[RunDirectory], digest: str) -> bytes | None:
    """The bytes under a digest, from the first of these runs that holds them."""
    for run in runs:
        with suppress(KeyError, ValueError):
            return run.get_blob(checked_digest(digest))
    return None


def _is_of_files(trail: Path) -> bool:
    # A pipe or a device in a directory from elsewhere would hold a reader for ever.
    beside = (trail.with_suffix(suffix) for suffix in (".final", ".tensors"))
    return trail.is_file() and all(path.is_file() or not path.exists() for path in beside)


def furnish(base: Path) -> None:
    """Put into a folder that keeps runs what belongs there, if it lacks it."""
    for name, content in ((".gitignore", b"*\n"), ("salt", _urandom(16))):
        if not (base / name).exists():
            with suppress(FileExistsError):  # another run of this moment made it
                _write_once(base / name, content)


def _write_once(path: Path, data: bytes, *, is_durable: bool = False) -> None:
    # Linked into place whole: a reader never sees half a file, and two writers never mix.
    draft = path.with_name(f".{path.name}.{os.getpid()}.{next(_drafts)}")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            if is_durable:
                os.fsync(file)
        finally:
            os.close(file)
        os.link(draft, path)
    finally:
        os.unlink(draft)  # also what a full disk has kept of it
