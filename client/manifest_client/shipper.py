"""The process that delivers: one for each folder of runs, started by recording, gone when idle.

``python -m manifest_client.shipper FOLDER``. It outlives the run, so that one that was killed is
sealed and delivered all the same. What it does not get through stays on disk, and goes along with
the next run or with `manifest sync`.
"""

from __future__ import annotations

import fcntl
import logging
import logging.handlers
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from manifest.delivered import is_delivered
from manifest.errors import ManifestError
from manifest.rundir import RunDirectory, run_directories
from manifest_client.connection import Client
from manifest_client.delivery import deliver, is_there
from manifest_client.problems import ServiceRefused, ServiceUnreachable
from manifest_client.settings import load_settings

LOCK: Final = "shipper.lock"
LOG: Final = "shipper.log"

_NICENESS: Final = 10  # the training comes first
_LOG_BYTES: Final = 256 * 1024

log = logging.getLogger("manifest.shipper")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the shipper waits for what."""

    idle_seconds: float = 15.0
    """For another run, before it leaves."""
    unreachable_seconds: float = 600.0
    """For a service that does not answer, once no run goes on."""
    look_seconds: float = 0.25
    """Between two looks at whether a run has ended."""
    growth_seconds: float = 5.0
    """Between two deliveries of a run that goes on."""
    longest_pause_seconds: float = 60.0
    """Between two attempts to reach the service."""


class Shipper:
    """Delivers the runs of one folder until there is nothing left to do."""

    def __init__(self, base: Path, client: Client, patience: Patience | None = None) -> None:
        self.base = base
        self._client = client
        self._patience = patience or Patience()
        self._done: set[str] = set()
        self._refused: set[str] = set()
        self._sizes: dict[str, int] = {}
        self._live: list[RunDirectory] = []
        self._failures = 0

    def work(self) -> bool:
        """Deliver until nothing has happened for a while, or the service is given up.

        Returns:
            Whether the service was there to the end.
        """
        last_useful = time.monotonic()
        while True:
            try:
                was_useful = self._round()
                self._failures = 0
            except ServiceUnreachable as error:
                was_useful = False
                self._failures += 1
                log.warning("%s", error)
            except ServiceRefused as error:
                log.error("%s", error)  # noqa: TRY400 -- its sentence says it all
                return False
            if was_useful or self._live:
                last_useful = time.monotonic()
            idle_seconds = time.monotonic() - last_useful
            if not self.base.is_dir():
                return False  # someone deleted the runs, or took their disk away
            if idle_seconds >= self._longest_idle_seconds():
                return not self._failures
            self._wait()

    def has_work(self) -> bool:
        """Whether there is a run that was not looked at yet."""
        seen = self._done | self._refused
        return any(run.id not in seen and is_there(run) for run in run_directories(self.base))

    def _longest_idle_seconds(self) -> float:
        patience = self._patience
        return patience.unreachable_seconds if self._failures else patience.idle_seconds

    def _round(self) -> bool:
        was_useful = False
        live: list[RunDirectory] = []
        for run in run_directories(self.base):
            if run.id in self._refused:
                continue
            try:
                if not is_there(run) or (run.id in self._done and not self._has_news(run)):
                    continue
                if self._deliver(run):
                    was_useful = True
                if run.id not in self._done:
                    live.append(run)
            except ServiceUnreachable:
                self._live = [each for each in run_directories(self.base) if _goes_on(each)]
                raise
            except (ManifestError, OSError) as error:
                if isinstance(error, ServiceRefused) and error.is_about_the_token:
                    raise
                log.error("run %s is not delivered: %s", run.id, error)  # noqa: TRY400
                if isinstance(error, OSError) and _goes_on(run):
                    live.append(run)  # what its disk refuses now it may give when there is more
                else:
                    self._refused.add(run.id)
        self._live = live
        return was_useful

    def _deliver(self, run: RunDirectory) -> bool:
        if is_delivered(run, self._client.url):
            self._done.add(run.id)
            return False
        size = _size_bytes(run)
        if size == self._sizes.get(run.id) and _goes_on(run):
            return False
        if deliver(run, self._client):
            self._done.add(run.id)
            log.info("run %s is delivered", run.id)
        self._sizes[run.id] = size
        return True

    def _has_news(self, run: RunDirectory) -> bool:
        # A verdict is written when the run is sealed already.
        verdict = run.path / "verdict.json"
        return run.id in self._sizes and verdict.exists() and not self._is_delivered(run)

    def _is_delivered(self, run: RunDirectory) -> bool:
        return is_delivered(run, self._client.url)

    def _wait(self) -> None:
        """Until a run begins or ends, or one that goes on may have grown."""
        patience = self._patience
        if self._failures:
            time.sleep(min(patience.longest_pause_seconds, 2.0**self._failures))
            return
        began = time.monotonic()
        there = _stamp(self.base / "runs")
        while time.monotonic() - began < min(patience.growth_seconds, patience.idle_seconds):
            time.sleep(patience.look_seconds)
            if _stamp(self.base / "runs") != there or any(run.is_sealed() for run in self._live):
                return


def main(arguments: list[str]) -> None:
    """Deliver the runs of a folder, unless another process does so already."""
    base = Path(arguments[0]).absolute()
    _log_into(base / LOG)
    os.nice(_NICENESS)
    try:
        settings = load_settings()
        if not settings.is_delivering or settings.url is None:
            log.info("no service is set up, or the mode is not `online`: nothing is sent")
            return
        os.chdir(base)  # the folder that it came from may be unmounted or deleted
        with Client(settings.url, token=settings.token) as client:
            _work(Shipper(base, client))
    except Exception:
        log.exception("the shipper ends")
        raise


def _work(shipper: Shipper) -> None:
    while True:
        with _alone(shipper.base / LOCK) as is_alone:
            if not is_alone:
                return
            has_ended_well = shipper.work()
        # Whoever began after the last look found the lock taken, and relied on us.
        if not has_ended_well or not shipper.has_work():
            return


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield True


def _log_into(path: Path) -> None:
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)


def _goes_on(run: RunDirectory) -> bool:
    try:
        return not run.is_sealed() and run.is_alive()
    except OSError:
        return False


def _size_bytes(run: RunDirectory) -> int:
    folders = (run.path / "journal", run.path / "trail")
    return sum(path.stat().st_size for folder in folders for path in folder.glob("*"))


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


if __name__ == "__main__":
    main(sys.argv[1:])
