"""How runs come in: whatever requests bring at the same time is committed together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar

from manifest.models import Annotations
from manifest_server.annotating import Remark
from manifest_server.committing import Committer, TooManyWaiting
from manifest_server.incoming import Incoming
from manifest_server.problems import Problem
from manifest_server.sqlstore import SqlStore

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

Reading = Callable[[], Incoming]
"""Reads a manifest out of a request, or raises what is wrong with it."""
RemarkReading = Callable[[], Remark]
"""The same of what somebody says of a run."""


class Intake:
    """Keeps runs in a store, in the order in which they come, and what is said of them.

    The thread that commits them reads and packs them, too: threads that compute take Python from
    each other, so that more of them would do the same work later.
    """

    def __init__(self, store: SqlStore, *, most_waiting: int) -> None:
        self._store = store
        self._runs = Committer(self._put_runs, most_waiting=most_waiting)
        self._remarks = Committer(self._put_remarks, most_waiting=most_waiting)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runs.close()
        self._remarks.close()

    def __len__(self) -> int:
        """How many requests have no answer yet."""
        return len(self._runs) + len(self._remarks)

    async def put_run(self, read: Reading) -> Incoming:
        """Give back a manifest once it is kept, and not before.

        Raises:
            Problem: Too many wait already.
            Exception: What `read` raises, and what `SqlStore.put_run` does.
        """
        return await _put(self._runs, read)

    async def put_remark(self, read: RemarkReading) -> Annotations:
        """Give back what is said of a run now, once it is kept.

        Raises:
            Problem: Too many wait already.
            Exception: What `read` raises, and what `SqlStore.put_annotations` does.
        """
        return await _put(self._remarks, read)

    def _put_runs(self, readings: Sequence[Reading]) -> Sequence[Incoming | Exception]:
        def put(given: Sequence[Incoming]) -> list[Incoming | Exception]:
            kept = self._store.put_each(given)
            return [error or each for each, error in zip(given, kept, strict=True)]

        return _each(readings, put)

    def _put_remarks(self, readings: Sequence[RemarkReading]) -> Sequence[Annotations | Exception]:
        return _each(readings, self._store.put_remarks)


async def _put(committer: Committer[_Item, _Result], item: _Item) -> _Result:
    try:
        return await committer.put(item)
    except TooManyWaiting:
        detail = "more comes in than can be kept now; send this again later"
        raise Problem(503, "service-busy", detail, headers={"Retry-After": "1"}) from None


def _each(
    readings: Sequence[Callable[[], _Item]],
    put: Callable[[Sequence[_Item]], Sequence[_Result | Exception]],
) -> Sequence[_Result | Exception]:
    """Keep together what can be read; gives what came of each."""
    read: list[_Item] = []
    faults: dict[int, Exception] = {}
    for number, reading in enumerate(readings):
        try:
            read.append(reading())
        except Exception as error:  # noqa: BLE001 -- for whoever sent it
            faults[number] = error
    kept = iter(put(read) if read else ())
    return [faults[number] if number in faults else next(kept) for number in range(len(readings))]
