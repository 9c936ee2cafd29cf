"""Work beside the program: not among its threads, and waited for only so long.

A fork copies one thread, and every lock that another one holds: of imports, of libraries. So work
that imports or enters a library is `undisturbed`, and a fork waits for its end.
"""

from __future__ import annotations

import _thread
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LONGEST_WAIT_OF_FORK_SECONDS = 1.0

_undisturbed = _thread.allocate_lock()
_at_work: set[int] = set()
_is_forking = False
_has_given_up = False


class Work:
    """Something that is done in a thread of its own, which `threading` does not show."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._ended = _thread.allocate_lock()
        self._ended.acquire()
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError:  # no more threads: the interpreter ends, or a limit is reached
            self._run()

    def join(self, timeout: float) -> bool:
        """Wait for the end, at most so many seconds; says whether it has come."""
        has_ended = self._ended.acquire(timeout=timeout)
        if has_ended:
            self._ended.release()
        return has_ended

    def _run(self) -> None:
        thread = _thread.get_ident()
        _at_work.add(thread)
        try:
            self._work()
        except Exception:  # whoever gives work notes what fails; a thread has nobody to tell
            pass
        finally:
            _at_work.discard(thread)
            self._ended.release()


def is_at_work() -> bool:
    """Whether what is done now, in this thread, is such work and none of the program's."""
    return _thread.get_ident() in _at_work


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let forks wait, a second at most, until this is over; keep it short."""
    lock = _undisturbed
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def in_background(work: Callable[[], None]) -> Work:
    """Do something short that the program need not wait for."""

    def undisturbed_work() -> None:
        with undisturbed():
            work()

    return Work(undisturbed_work)


def _before_fork() -> None:
    global _is_forking, _has_given_up
    if not _has_given_up:
        _is_forking = _undisturbed.acquire(timeout=_LONGEST_WAIT_OF_FORK_SECONDS)
        _has_given_up = not _is_forking


def _after_in_parent() -> None:
    global _is_forking
    if _is_forking:
        _is_forking = False
        _undisturbed.release()


def _after_in_child() -> None:
    global _undisturbed, _is_forking, _has_given_up
    _undisturbed = _thread.allocate_lock()  # it may be held by a thread that does not exist here
    _is_forking = _has_given_up = False
    _at_work.clear()  # the program's threads may get the numbers of those


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)
