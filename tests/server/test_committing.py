"""A group commit writes together what waits, and tells each sender what came of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from manifest_server.committing import MOST_TOGETHER, Committer, TooManyWaiting


class Writer:
    """Writes nothing, and waits with its first group until it is told to go on."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.has_begun, self.may_go_on = threading.Event(), threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.groups.append(list(items))
        self.has_begun.set()
        assert self.may_go_on.wait(60)
        if 13 in items:
            raise OSError(13)
        return [ValueError(item) if item < 0 else item * 2 for item in items]


async def give(
    committer: Committer[int, int], writer: Writer, items: Sequence[int]
) -> list[asyncio.Task[int]]:
    """Give one item, and while it is being written the others."""
    tasks = [asyncio.create_task(committer.put(items[0]))]
    await asyncio.to_thread(writer.has_begun.wait)
    tasks += [asyncio.create_task(committer.put(item)) for item in items[1:]]
    await asyncio.sleep(0)
    return tasks


def wait_until(is_so: Callable[[], bool]) -> None:
    """Look until it is."""
    while not is_so():
        pass


def outcomes(
    items: Sequence[int], *, then: Callable[[Writer], None]
) -> tuple[Writer, list[object]]:
    """What came of items, which are let go when all wait."""

    async def run() -> list[object]:
        with Committer(writer, most_waiting=100) as committer:
            tasks = await give(committer, writer, items)
            then(writer)
            return list(await asyncio.gather(*tasks, return_exceptions=True))

    writer = Writer()
    return writer, asyncio.run(run())


def test_what_comes_while_one_group_is_written_goes_together() -> None:
    writer, found = outcomes(range(10), then=lambda writer: writer.may_go_on.set())
    assert found == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert writer.groups == [[0], [*range(1, 10)]]


def test_a_group_has_a_largest_size() -> None:
    writer, _ = outcomes(range(100), then=lambda writer: writer.may_go_on.set())
    assert [len(group) for group in writer.groups] == [1, MOST_TOGETHER, 99 - MOST_TOGETHER]


def test_one_that_is_refused_does_not_fail_the_others() -> None:
    _, found = outcomes([1, 2, -3, 4], then=lambda writer: writer.may_go_on.set())
    assert found[:2] + found[3:] == [2, 4, 8]
    assert isinstance(found[2], ValueError)


def test_a_failure_fails_exactly_those_who_wait_for_it() -> None:
    async def run() -> tuple[list[object], int]:
        with Committer(writer, most_waiting=100) as committer:
            tasks = await give(committer, writer, [1, 13, 2])
            writer.may_go_on.set()
            return list(await asyncio.gather(*tasks, return_exceptions=True)), await committer.put(
                3
            )

    writer = Writer()
    found, after = asyncio.run(run())
    assert [type(each) for each in found] == [int, OSError, OSError]
    assert after == 6


def test_no_more_wait_than_may() -> None:
    async def run() -> list[object]:
        with Committer(writer, most_waiting=3) as committer:
            tasks = await give(committer, writer, [1, 2, 3, 4])
            with pytest.raises(TooManyWaiting):
                await tasks[3]
            assert len(committer) == 3
            writer.may_go_on.set()
            return list(await asyncio.gather(*tasks[:3]))

    writer = Writer()
    assert asyncio.run(run()) == [2, 4, 6]


def test_closing_writes_what_was_taken_and_takes_nothing_more() -> None:
    async def run() -> list[object]:
        committer = Committer(writer, most_waiting=100)
        tasks = await give(committer, writer, [1, 2, 3])
        closing = asyncio.create_task(asyncio.to_thread(committer.close))
        await asyncio.to_thread(wait_until, lambda: committer._is_closed)
        with pytest.raises(TooManyWaiting):
            await committer.put(4)
        writer.may_go_on.set()
        await closing
        return list(await asyncio.gather(*tasks))

    writer = Writer()
    assert asyncio.run(run()) == [2, 4, 6]


def test_one_who_gave_up_does_not_stop_the_others() -> None:
    async def run() -> list[object]:
        with Committer(writer, most_waiting=100) as committer:
            tasks = await give(committer, writer, [1, 2, 3])
            tasks[1].cancel()
            writer.may_go_on.set()
            return list(await asyncio.gather(tasks[0], tasks[2]))

    writer = Writer()
    assert asyncio.run(run()) == [2, 6]
