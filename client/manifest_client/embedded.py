"""The store beside the run directories: an index of them that commands read.

It is brought up to date when a command asks, so that recording never pays for it. Deleting it loses
nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from manifest.errors import DamagedRun, DigestMismatch
from manifest.rundir import RunDirectory, run_directories
from manifest.stores import Store
from manifest_client.reading import ReadRun, Warn, read_run

if TYPE_CHECKING:
    from manifest_server.sqlstore import SqlStore

STORE: Final = "store.db"
"""The file of the store, beside the folder of runs."""

_PORTION: Final = 500


def open_embedded(base: Path, on_warning: Warn, *, newest: int | None = None) -> SqlStore:
    """Open the store of `base` with everything that its run directories hold.

    A run whose processes died without an end is sealed here and becomes `crashed`. A directory
    that cannot be read is named in a warning and left as it is.

    Args:
        base: The folder that keeps runs; it must be there.
        on_warning: Told of each directory that was left out.
        newest: Take in only so many, for who looks no further back; by default all.

    Raises:
        StoreUnusable: The store cannot be opened, read or written.
    """
    from manifest_migrations.upgrade import open_store
    from manifest_server.database import sqlite_url

    # What the power takes from an index is taken in again: nobody need wait for the disk.
    store = open_store(sqlite_url(base / STORE), is_durable=False)
    try:
        take_in(store, run_directories(base), on_warning, newest=newest)
    except BaseException:
        store.close()
        raise
    return store


def take_in(
    store: Store, runs: list[RunDirectory], on_warning: Warn, *, newest: int | None = None
) -> None:
    """Put what the store does not hold yet of these run directories, given newest first."""
    wanted = len(runs) if newest is None else newest
    size = max(1, min(wanted, _PORTION))
    held = 0
    for start in range(0, len(runs), size):
        portion = runs[start : start + size]
        known = store.digests(run.id for run in portion)
        news = [run for run in portion if _is_news(run, known, store)]
        taken = [found for run in news if (found := read_run(run, on_warning)) is not None]
        held += len(portion) - len(news) + _put(store, taken, on_warning)
        if held >= wanted:
            return


def _is_news(run: RunDirectory, known: dict[str, str], store: Store) -> bool:
    if not known.get(run.id) or not run.is_sealed():
        return True
    # A verdict is written when the run is sealed already.
    return run.verdict() is not None and store.get_verdict(run.id) is None


def _put(store: Store, news: list[ReadRun], on_warning: Warn) -> int:
    try:
        store.put_runs(news)
    except (DamagedRun, DigestMismatch):
        return _put_one_by_one(store, news, on_warning)
    return len(news)


def _put_one_by_one(store: Store, news: list[ReadRun], on_warning: Warn) -> int:
    # One run that cannot be kept must not keep the others out.
    held = 0
    for manifest, verdict in news:
        try:
            store.put_run(manifest, verdict)
            held += 1
        except (DamagedRun, DigestMismatch) as error:
            on_warning(f"skipped run {manifest.id}: {error}")
    return held
