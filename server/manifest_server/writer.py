"""A process that commits what this one takes in, so that whoever answers has Python to itself.

Threads of one process take turns at Python: one that reads and packs manifests holds up every
answer, and is held up by it. The process is a fork, so that it starts at once and shares most of
its memory.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Generic, Self, TypeAlias, TypeVar

from manifest.errors import ManifestError
from manifest.models import Annotations
from manifest_server.keeping import Kept, Reading, RemarkReading, keep_remarks, keep_runs
from manifest_server.problems import Problem
from manifest_server.sqlstore import SqlStore

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Keep: TypeAlias = Callable[[SqlStore, Sequence[_Item]], Sequence[_Result | Exception]]
_Pipe: TypeAlias = "Connection[Any, Any]"

_NAME: Final = "manifest-writer"
_STANDARD_STREAMS: Final = 3
_LOG = logging.getLogger("manifest_server")


class WriterFault(Exception):
    """A fault of the service in the process that writes; its text says where."""


class Desk(Generic[_Item, _Result]):
    """Where one kind of thing is handed to the process that writes.

    Args:
        pipe: To that process.
        keep: What it does; done here once it has ended.
    """

    def __init__(self, pipe: _Pipe, keep: _Keep[_Item, _Result]) -> None:
        self._pipe: _Pipe | None = pipe
        self._keep = keep

    def keep(self, store: SqlStore, sent: Sequence[_Item]) -> Sequence[_Result | Exception]:
        """Have things kept; gives what came of each."""
        if self._pipe is not None:
            try:
                with store.turn():
                    return _asked(self._pipe, sent)
            except (OSError, EOFError):
                # What it was given last it may have committed: to keep it again changes nothing.
                self.close()
                _LOG.error(
                    "the process that writes has ended; this one does its work until the "
                    "service is started again"
                )
        return self._keep(store, sent)

    def close(self) -> None:
        """Say that nothing more comes."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


class Writer:
    """A process that writes into a store; made by `start`."""

    def __init__(
        self,
        process_id: int,
        runs: Desk[Reading, Kept],
        remarks: Desk[RemarkReading, Annotations],
    ) -> None:
        self.process_id = process_id
        self.runs = runs
        self.remarks = remarks

    @classmethod
    def start(cls, open_store: Callable[[], SqlStore]) -> Self | None:
        """Fork it, before this process has opened a store or started other threads.

        Args:
            open_store: Called there.

        Returns:
            None where no process can be forked, or not safely.
        """
        # What another thread holds at that moment, nobody in the fork would ever give back. The
        # libraries of macOS bear no fork at all.
        if sys.platform != "linux" or threading.active_count() > 1:
            return None
        (runs, their_runs), (remarks, their_remarks) = Pipe(), Pipe()
        try:
            process_id = os.fork()
        except OSError:
            _LOG.exception("no process can be started that writes; this one does its work")
            return None
        if not process_id:
            _live(open_store, {their_runs: keep_runs, their_remarks: keep_remarks})
        their_runs.close()
        their_remarks.close()
        return cls(process_id, Desk(runs, keep_runs), Desk(remarks, keep_remarks))

    def close(self) -> None:
        """Return when it has written all that it was given, and ended."""
        self.runs.close()
        self.remarks.close()
        with suppress(ChildProcessError):
            os.waitpid(self.process_id, 0)


def _asked(pipe: _Pipe, sent: Sequence[_Item]) -> Sequence[Any]:
    pipe.send(sent)
    answer: Sequence[Any] | Exception = pipe.recv()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _live(open_store: Callable[[], SqlStore], pipes: Mapping[_Pipe, _Keep[Any, Any]]) -> None:
    """The life of the process, which ends with the other one, however that ends."""
    try:
        _part([pipe.fileno() for pipe in pipes])
        with _Opening(open_store) as opening:
            desks = [
                threading.Thread(target=_serve, args=(opening, *each)) for each in pipes.items()
            ]
            for each in desks:
                each.start()
            for each in desks:
                each.join()
    finally:
        os._exit(0)  # what the other process has set up for its own end is not for this one


class _Opening:
    """A store that is opened when it is needed, and tried again where it could not be."""

    def __init__(self, open_store: Callable[[], SqlStore]) -> None:
        self._open_store = open_store
        self._lock = threading.Lock()
        self._closing = ExitStack()
        self._store: SqlStore | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def store(self) -> SqlStore:
        """The store; raises what opening it does."""
        with self._lock:
            if self._store is None:
                self._store = self._closing.enter_context(self._open_store())
            return self._store


def _part(kept: Sequence[int]) -> None:
    """Leave alone what is the other process's."""
    # They are sent to both: the other answers what it took, and then says that nothing more comes.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    # Its sockets would stay open as long as here. The numbers stay taken, as objects that came
    # along may close them at any time.
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in sorted(map(int, os.listdir("/proc/self/fd"))):
        if number >= _STANDARD_STREAMS and number not in (*kept, nothing):
            os.dup2(nothing, number, inheritable=False)
    with suppress(OSError):
        Path("/proc/self/comm").write_text(_NAME, encoding="ascii")


def _serve(opening: _Opening, pipe: _Pipe, keep: _Keep[Any, Any]) -> None:
    with suppress(OSError, EOFError):
        while True:
            pipe.send(_kept(opening, pipe.recv(), keep))


def _kept(
    opening: _Opening, sent: Sequence[Any], keep: _Keep[Any, Any]
) -> Sequence[Any] | Exception:
    try:
        found = keep(opening.store(), sent)
        return [_fault(each) if isinstance(each, Exception) else each for each in found]
    except Exception as error:  # noqa: BLE001 -- for those who wait; the next may succeed
        return _fault(error)


def _fault(error: Exception) -> Exception:
    """What can be told to another process of what went wrong."""
    if isinstance(error, ManifestError | Problem):
        return error
    return WriterFault("".join(traceback.format_exception(error)))
