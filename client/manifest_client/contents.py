"""What lies beside the manifest of a run, put into a store: blobs and trails.

Commands read the run directories themselves; a service knows what its store holds.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from manifest.blobs import blobs_of
from manifest.rundir import RunDirectory
from manifest.segments import SEGMENT_STEPS
from manifest.streams import ROW_SIZE

if TYPE_CHECKING:
    from manifest.models import KeptTrail
    from manifest_server.sqlstore import SqlStore

_BESIDE: Final = re.compile(r"(?!bin$)[a-z]{1,20}")
_PORTION_BYTES: Final = 64 * SEGMENT_STEPS * ROW_SIZE


def put_contents(store: SqlStore, run: RunDirectory) -> None:
    """Put what a store lacks of a run that it knows, any number of times.

    Raises:
        ManifestError: It cannot be kept, or is not what its digest says.
        OSError: The run directory cannot be read.
    """
    manifest = store.get_run(run.id)
    digests = blobs_of(manifest)
    lacking = set(store.blobs.lacking(digests))
    for digest in digests:
        if digest not in lacking:
            continue
        with suppress(KeyError):  # never kept here, or in another run's directory alone
            store.blobs.put(run.get_blob(digest))
    kept = {trail.process: trail for trail in store.trails.list(run.id)}
    for process, path in run.trail_paths().items():
        has_begun = _put_rows(store, run.id, path, kept.get(process))
        if has_begun and manifest.digest:
            _put_beside(store, run.id, path, kept.get(process))


def beside(rows: Path) -> dict[str, Path]:
    """The files that lie beside the rows of a trail, by how their names end."""
    found = {
        path.name.removeprefix(f"{rows.stem}."): path
        for path in sorted(rows.parent.glob(f"{rows.stem}.*"))
    }
    return {suffix: path for suffix, path in found.items() if _BESIDE.fullmatch(suffix)}


def _put_rows(store: SqlStore, run_id: str, path: Path, kept: KeptTrail | None) -> bool:
    with path.open("rb") as file:
        header = file.readline()
        if not header.endswith(b"\n"):
            return False  # torn before its first row
        known = 0 if kept is None else kept.steps
        if kept is None:
            store.trails.put_rows(run_id, path.stem, header, start=0)
        start = known // SEGMENT_STEPS * SEGMENT_STEPS
        file.seek(len(header) + start * ROW_SIZE)
        while rows := _whole(file.read(_PORTION_BYTES)):
            stop = start + len(rows) // ROW_SIZE
            if stop > known:
                body = rows if start else header + rows
                store.trails.put_rows(run_id, path.stem, body, start=start)
            if len(rows) < _PORTION_BYTES:
                break  # what is written meanwhile goes along the next time
            start = stop
    return True


def _put_beside(store: SqlStore, run_id: str, path: Path, kept: KeptTrail | None) -> None:
    known = {} if kept is None else kept.files
    for suffix, file in beside(path).items():
        if suffix not in known:  # of a run that is over none is written again
            digest = store.blobs.put(file.read_bytes())
            store.trails.put_file(run_id, path.stem, suffix, digest)


def _whole(rows: bytes) -> bytes:
    return rows[: len(rows) // ROW_SIZE * ROW_SIZE]  # a torn row was never written
