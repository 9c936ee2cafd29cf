"""Group commit: one thread writes together what many requests wait for.

A commit costs as much for one run as for thirty: most of it is waiting for the disk. Whatever comes
while one is under way goes into the next, so groups are as large as the load makes them.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

MOST_TOGETHER: Final = 64
"""How many go into one transaction, so that others who write to the database have their turn."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class TooManyWaiting(Exception):
    """As many wait as may, or nothing is taken any more."""


class Committer(Generic[_Item, _Result]):
    """Writes what it is given in groups, and tells each giver what came of it.

    Args:
        write: Writes a group, in a thread of its own; gives what came of each item. Where it
            raises, that came of all of them.
        most_waiting: How many items may have no answer yet.
    """

    def __init__(
        self,
        write: Callable[[Sequence[_Item]], Sequence[_Result | Exception]],
        *,
        most_waiting: int,
    ) -> None:
        self._write = write
        self._most_waiting = most_waiting
        self._waiting: deque[tuple[_Item, asyncio.Future[_Result]]] = deque()
        self._changed = threading.Condition()
        self._under_way = 0
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="committer", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """How many have no answer yet."""
        return len(self._waiting) + self._under_way

    def close(self) -> None:
        """Take nothing more, and return when what was taken is written."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    async def put(self, item: _Item) -> _Result:
        """Give an item and wait until it is committed.

        Raises:
            TooManyWaiting: It was not taken.
            Exception: What came of it.
        """
        done: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        with self._changed:
            if self._is_closed or len(self) >= self._most_waiting:
                raise TooManyWaiting
            self._waiting.append((item, done))
            self._changed.notify()
        return await done

    def _work(self) -> None:
        while group := self._next_group():
            for (_, done), result in zip(group, self._written(group), strict=True):
                with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
                    done.get_loop().call_soon_threadsafe(_settle, done, result)

    def _next_group(self) -> list[tuple[_Item, asyncio.Future[_Result]]]:
        with self._changed:
            self._under_way = 0
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            self._under_way = min(len(self._waiting), MOST_TOGETHER)
            return [self._waiting.popleft() for _ in range(self._under_way)]

    def _written(
        self, group: Sequence[tuple[_Item, asyncio.Future[_Result]]]
    ) -> Sequence[_Result | Exception]:
        try:
            return self._write([item for item, _ in group])
        except Exception as error:  # noqa: BLE001 -- for those who wait; the next may succeed
            return [error] * len(group)


def _settle(done: asyncio.Future[_Result], result: _Result | Exception) -> None:
    if done.done():  # given up by whoever waited
        return
    if isinstance(result, Exception):
        done.set_exception(result)
    else:
        done.set_result(result)
