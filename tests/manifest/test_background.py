"""Work beside the program: unseen, bounded, and out of the way of forks."""

from __future__ import annotations

import os
import threading
import time

from manifest.background import Work, undisturbed


def test_work_is_done_beside_and_can_be_waited_for() -> None:
    before = threading.enumerate()
    may_end = threading.Event()
    seen: list[int] = []

    def wait() -> None:
        may_end.wait()
        seen.append(1)

    work = Work(wait)
    assert threading.enumerate() == before
    assert not work.join(0.01)
    may_end.set()
    assert work.join(10)
    assert work.join(0)
    assert seen == [1]


def test_work_that_fails_ends() -> None:
    assert Work(lambda: int("x")).join(10)  # type: ignore[arg-type]


def test_a_fork_waits_until_work_is_over_that_must_not_be_disturbed() -> None:
    ended = []

    def work() -> None:
        with undisturbed():
            time.sleep(0.05)
            ended.append(1)

    begun = Work(work)
    time.sleep(0.01)
    child = os.fork()
    if child == 0:
        with undisturbed():  # the child's own lock is free
            os._exit(len(ended))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    assert begun.join(10)
    with undisturbed():
        pass


def test_a_fork_does_not_wait_for_ever() -> None:
    may_end = threading.Event()

    def work() -> None:
        with undisturbed():
            may_end.wait()

    stuck = Work(work)
    time.sleep(0.01)
    for _ in range(3):  # only the first waits
        child = os.fork()
        if child == 0:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    may_end.set()
    assert stuck.join(10)
