"""How runs come in: whatever requests bring at the same time is committed together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from manifest_server.committing import Committer, TooManyWaiting
from manifest_server.incoming import Incoming
from manifest_server.problems import Problem
from manifest_server.sqlstore import SqlStore

Reading = Callable[[], Incoming]
"""Reads a manifest out of a request, or raises what is wrong with it."""


class Intake:
    """Keeps runs in a store, in the order in which they come.

    The thread that commits them reads and packs them, too: threads that compute take Python from
    each other, so that more of them would do the same work later.
    """

    def __init__(self, store: SqlStore, *, most_waiting: int) -> None:
        self._store = store
        self._committer = Committer(self._put_each, most_waiting=most_waiting)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._committer.close()

    def __len__(self) -> int:
        """How many runs have no answer yet."""
        return len(self._committer)

    async def put_run(self, read: Reading) -> Incoming:
        """Give back a manifest once it is kept, and not before.

        Raises:
            Problem: Too many wait already.
            Exception: What `read` raises, and what `SqlStore.put_run` does.
        """
        try:
            return await self._committer.put(read)
        except TooManyWaiting:
            detail = "more runs come in than can be kept now; send this one again later"
            raise Problem(503, "service-busy", detail, headers={"Retry-After": "1"}) from None

    def _put_each(self, readings: Sequence[Reading]) -> list[Incoming | Exception]:
        results = [_result_of(read) for read in readings]
        given = [each for each in results if isinstance(each, Incoming)]
        kept = iter(self._store.put_each(given))
        return [(next(kept) or each) if isinstance(each, Incoming) else each for each in results]


def _result_of(read: Reading) -> Incoming | Exception:
    try:
        return read()
    except Exception as error:  # noqa: BLE001 -- for whoever sent it
        return error
