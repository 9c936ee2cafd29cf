"""How runs come in: whatever requests bring at the same time is committed together."""

from __future__ import annotations

from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from manifest.models import Annotations
from manifest_server.committing import Committer, TooManyWaiting
from manifest_server.keeping import Kept, Reading, RemarkReading, keep_remarks, keep_runs
from manifest_server.problems import Problem
from manifest_server.sqlstore import SqlStore
from manifest_server.writer import Writer

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Intake:
    """Keeps runs in a store, in the order in which they come, and what is said of them.

    Whoever commits them reads and packs them, too: threads that compute take Python from each
    other, so that more of them would do the same work later.

    Args:
        store: Where they are kept.
        most_waiting: How many runs, and how many remarks, may have no answer yet.
        writer: Who commits them; a thread of this process by default.
    """

    def __init__(self, store: SqlStore, *, most_waiting: int, writer: Writer | None = None) -> None:
        runs = keep_runs if writer is None else writer.runs.keep
        remarks = keep_remarks if writer is None else writer.remarks.keep
        self._runs = Committer(partial(runs, store), most_waiting=most_waiting)
        self._remarks = Committer(partial(remarks, store), most_waiting=most_waiting)

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

    async def put_run(self, sent: Reading) -> Kept:
        """Say what is kept of a run once it is, and not before.

        Raises:
            Problem: Too many wait already.
            Exception: What `sent` raises when it is read, and what `SqlStore.put_run` does.
        """
        return await _put(self._runs, sent)

    async def put_remark(self, sent: RemarkReading) -> Annotations:
        """Give back what is said of a run now, once it is kept.

        Raises:
            Problem: Too many wait already.
            Exception: What `sent` raises when it is read, and what `SqlStore.put_annotations` does.
        """
        return await _put(self._remarks, sent)


async def _put(committer: Committer[_Item, _Result], item: _Item) -> _Result:
    try:
        return await committer.put(item)
    except TooManyWaiting:
        detail = "more comes in than can be kept now; send this again later"
        raise Problem(503, "service-busy", detail, headers={"Retry-After": "1"}) from None
