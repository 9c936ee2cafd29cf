"""A fair lock is had by one thread at a time, and in the order in which they asked."""

from __future__ import annotations

import threading

import pytest

from manifest_server.fairness import FairLock


def test_only_one_thread_has_it_at_a_time() -> None:
    lock, inside, seen = FairLock(), [], []

    def work() -> None:
        for _ in range(200):
            with lock:
                inside.append(1)
                seen.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 800


def test_whoever_wants_it_again_stands_behind_those_who_wait() -> None:
    lock, order, threads = FairLock(), list[str](), list[threading.Thread]()

    def work(name: str) -> None:
        with lock:
            order.append(name)

    with lock:
        for count, name in enumerate("abc", start=1):
            threads.append(threading.Thread(target=work, args=(name,)))
            threads[-1].start()
            while len(lock._waiting) < count:
                pass
    with lock:  # at once, before those who wait are awake
        order.append("again")
    for thread in threads:
        thread.join()
    assert order == ["a", "b", "c", "again"]


def test_it_is_given_back_by_whoever_fails() -> None:
    lock = FairLock()
    with pytest.raises(ZeroDivisionError), lock:
        _ = 1 / 0
    with lock:
        assert lock._is_held
