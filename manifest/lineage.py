"""The names of a run's processes: who started whom, in which order.

``main`` is the program; ``main.f0`` its first fork, ``main.x0`` the first program it executes. The
same program gives the same names again, which is what entropy and trails are keyed by.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

VARIABLE = "MANIFEST_PROCESS"


class Lineage:
    """The name of this process, and the names it gives to its children."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._forks = 0
        self._executions = 0
        self._lock = threading.RLock()

    @property
    def has_children(self) -> bool:
        """Whether this process has forked, or executed a program that it watches."""
        return bool(self._forks or self._executions)

    def rename(self, name: str) -> None:
        """Begin anew under another name."""
        with self._lock:
            self.name = name
            self._forks = self._executions = 0

    def install(self, after_fork: Callable[[], None]) -> None:
        """Name every child from now on; `after_fork` runs in each forked one, renamed already."""
        self._after_fork = after_fork
        os.register_at_fork(
            before=self._before_fork,
            after_in_parent=self._in_parent,
            after_in_child=self._in_child,
        )
        _name_executed_children(self)

    def next_execution(self) -> str:
        """The name of the next program that this process starts."""
        with self._lock:
            ordinal, self._executions = self._executions, self._executions + 1
        return f"{self.name}.x{ordinal}"

    @contextmanager
    def named_in_environment(self) -> Iterator[None]:
        """Let the next program inherit a name: through the C environment, never `os.environ`."""
        with self._lock:
            os.putenv(VARIABLE, self.next_execution())
            try:
                yield
            finally:
                os.putenv(VARIABLE, self.name)

    def _before_fork(self) -> None:
        self._lock.acquire()

    def _in_parent(self) -> None:
        self._forks += 1
        self._lock.release()

    def _in_child(self) -> None:
        self._lock = threading.RLock()  # held by a thread that does not exist here
        self.name = f"{self.name}.f{self._forks}"
        self._forks = self._executions = 0
        os.putenv(VARIABLE, self.name)
        self._after_fork()


class _PerThread(threading.local):
    keeps_names = False


_thread = _PerThread()


@contextmanager
def names_kept() -> Iterator[None]:
    """Start programs of another run, in this thread: they have the names that they are given."""
    _thread.keeps_names = True
    try:
        yield
    finally:
        _thread.keeps_names = False


def _name_executed_children(lineage: Lineage) -> None:
    # Both `subprocess` and `multiprocessing` start programs through this one function; an audit
    # hook would see only the first, and cannot change the environment.
    try:
        import _posixsubprocess
    except ImportError:  # not POSIX
        return
    original = _posixsubprocess.fork_exec

    def fork_exec(*args: Any) -> Any:
        return original(*_with_child_name(lineage, args))

    _posixsubprocess.fork_exec = _putting_name_where_inherited(lineage, fork_exec)
    subprocess = sys.modules.get("subprocess")
    if subprocess is not None:
        subprocess._fork_exec = _posixsubprocess.fork_exec  # type: ignore[attr-defined]
    for name in ("posix_spawn", "posix_spawnp"):
        _wrap_spawn(lineage, name)


_ENVIRONMENT_ARGUMENT = 5  # of fork_exec, in CPython 3.11 to 3.14


def _with_child_name(lineage: Lineage, args: tuple[Any, ...]) -> tuple[Any, ...]:
    environment = args[_ENVIRONMENT_ARGUMENT] if len(args) > _ENVIRONMENT_ARGUMENT else None
    if _thread.keeps_names or not isinstance(environment, list):
        return args
    prefix = f"{VARIABLE}=".encode()
    if not any(item.startswith(prefix) for item in environment):
        return args  # an environment made from nothing: that child is not watched
    named = prefix + lineage.next_execution().encode()
    environment = [named if item.startswith(prefix) else item for item in environment]
    return (*args[:_ENVIRONMENT_ARGUMENT], environment, *args[_ENVIRONMENT_ARGUMENT + 1 :])


def _putting_name_where_inherited(
    lineage: Lineage, fork_exec: Callable[..., Any]
) -> Callable[..., Any]:
    def named_fork_exec(*args: Any) -> Any:
        if len(args) > _ENVIRONMENT_ARGUMENT and args[_ENVIRONMENT_ARGUMENT] is not None:
            return fork_exec(*args)
        with lineage.named_in_environment():
            return fork_exec(*args)

    return named_fork_exec


def _wrap_spawn(lineage: Lineage, name: str) -> None:
    original = getattr(os, name, None)
    if original is None:
        return

    def spawn(path: Any, argv: Any, env: Any, /, **options: Any) -> Any:
        if env is None:  # inherit, since CPython 3.13
            with lineage.named_in_environment():
                return original(path, argv, env, **options)
        if VARIABLE in env and not _thread.keeps_names:
            env = {**env, VARIABLE: lineage.next_execution()}
        return original(path, argv, env, **options)

    spawn.__name__ = spawn.__qualname__ = name
    spawn.__doc__ = original.__doc__
    setattr(os, name, spawn)
