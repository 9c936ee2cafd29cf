"""Keep together what was sent together, and tell of each what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from manifest.models import Annotations
from manifest_server.annotating import Remark
from manifest_server.incoming import Incoming
from manifest_server.sqlstore import SqlStore

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

Reading = Callable[[SqlStore], Incoming]
"""Reads a manifest out of what was sent, or raises what is wrong with it."""
RemarkReading = Callable[[SqlStore], Remark]
"""The same of what somebody says of a run."""


class Kept(NamedTuple):
    """A run that is kept now."""

    id: str
    digest: str
    """Of its manifest; empty while the run goes on."""


def keep_runs(store: SqlStore, readings: Sequence[Reading]) -> Sequence[Kept | Exception]:
    """Keep runs; gives what came of each: see `SqlStore.put_each`.

    Raises:
        StoreUnusable: None of them is kept.
    """

    def put(given: Sequence[Incoming]) -> list[Kept | Exception]:
        kept = (Kept(each.manifest.id, each.manifest.digest) for each in given)
        return [error or each for each, error in zip(kept, store.put_each(given), strict=True)]

    return _each(store, readings, put)


def keep_remarks(
    store: SqlStore, readings: Sequence[RemarkReading]
) -> Sequence[Annotations | Exception]:
    """Keep what is said of runs; gives what came of each: see `SqlStore.put_remarks`.

    Raises:
        StoreUnusable: None of it is kept.
    """
    return _each(store, readings, store.put_remarks)


def _each(
    store: SqlStore,
    readings: Sequence[Callable[[SqlStore], _Item]],
    put: Callable[[Sequence[_Item]], Sequence[_Result | Exception]],
) -> Sequence[_Result | Exception]:
    """Keep together what can be read; gives what came of each."""
    read: list[_Item] = []
    faults: dict[int, Exception] = {}
    for number, reading in enumerate(readings):
        try:
            read.append(reading(store))
        except Exception as error:  # noqa: BLE001 -- for whoever sent it
            faults[number] = error
    kept = iter(put(read) if read else ())
    return [faults[number] if number in faults else next(kept) for number in range(len(readings))]
