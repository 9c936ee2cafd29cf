"""What is put into a process, once, so that recorders can watch it.

Several runs may follow one another in one process (a sweep, a notebook); the hooks stay and serve
whichever recorder is active.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, TracebackType

from manifest.background import is_at_work
from manifest.canonical import Json
from manifest.determinism.telling import Tell, tell_of_error, watch_warnings
from manifest.entropy import Entropy, new_master
from manifest.environment.lookups import Lookups
from manifest.files import Files
from manifest.importing import when_imported
from manifest.lineage import Lineage
from manifest.noticing import Noticed, notice_random, notice_torch
from manifest.pins import numpy_random, os_entropy, python_random, torch_random
from manifest.seeding import WATCHES, Listener, Seeds

Note = Callable[[str, object], None]


class Hooks:
    """The pinned sources, names and listeners of this process."""

    def __init__(self, *, note: Note, tell: Tell) -> None:
        self.entropy = Entropy(new_master(), "")
        self.uses = os_entropy.Uses()
        self.lineage = Lineage("")
        self.files = Files(is_at_work)
        self.lookups = Lookups()
        self.seeds = Seeds()
        self.noticed = Noticed()
        self.error: str | None = None
        self.was_interrupted = False
        self._from_start = False
        self._note = note
        self._tell = tell

    def begin(self, master: bytes, process: str, *, is_pinning_os: bool) -> None:
        """Serve a recorder from now on."""
        self.entropy.renew(master, process)
        self.lineage.rename(process)
        self.uses.places.clear()
        self.uses.is_pinned = is_pinning_os
        self.error = None

    def install(self, *, from_start: bool, on_fork: Callable[[], None]) -> None:
        """Put everything in place.

        Args:
            from_start: Whether the program has not run yet, so that shared generators may start
                from the recorded entropy; else whoever records captures their state.
            on_fork: Called in every forked child, with its entropy and name already its own.
        """
        self._attempt("pins.os", lambda: os_entropy.pin(self.entropy, self.uses))
        self._from_start = from_start
        self._pin_when_imported("random", self._pin_random)
        self._pin_when_imported("numpy.random.bit_generator", self._pin_numpy)
        self._pin_when_imported("torch", self._pin_torch)
        self._install_watches()

        def forked() -> None:
            self.entropy.continue_as(self.lineage.name)
            self.uses.places.clear()
            self.seeds.begin_in_fork()
            on_fork()

        self._attempt("lineage", lambda: self.lineage.install(forked))
        self._attempt("files", self.files.install)
        self._attempt("lookups", self.lookups.install)
        self._watch_exceptions()
        when_imported(
            "torch", lambda _: self._attempt("warnings", lambda: watch_warnings(self._tell))
        )

    def watch_files(self, root: Path, on_source: Callable[[Path], None], *, base: Path) -> None:
        """Report the files of a project, but for those of the runs that are kept in `base`."""
        self.files.begin(root, on_source, base=base)

    def watch_lookups(
        self, root: Path, salt: Callable[[], bytes], on_first: Callable[[str, Json], None]
    ) -> None:
        """Report the environment variables that the program asks for."""
        self._attempt("lookups", lambda: self.lookups.begin(str(root), salt, on_first))

    def watch_seeds(self, root: Path, listener: Listener) -> None:
        """Report the seeds that the program gives, and the generators that it makes."""
        self.seeds.begin(str(root), listener)
        self.noticed.begin(str(root))

    def end(self) -> None:
        """Serve nobody: unseeded sources draw fresh entropy again, listeners are deaf."""
        self.entropy.renew(new_master(), self.lineage.name)
        self.uses.is_pinned = False
        self.files.is_active = False
        self.lookups.end()
        self.seeds.end()
        self.noticed.end()

    def _pin_when_imported(self, name: str, pin: Callable[[ModuleType], None]) -> None:
        when_imported(name, lambda module: self._attempt(f"pins.{name}", lambda: pin(module)))

    def _pin_random(self, random: ModuleType) -> None:
        os_entropy.rebind(random)
        python_random.pin(random, self.entropy, from_start=self._from_start)

    def _pin_numpy(self, bit_generator: ModuleType) -> None:
        numpy_random.pin(bit_generator, self.entropy)

    def _pin_torch(self, torch: ModuleType) -> None:
        torch_random.pin(torch, self.entropy, from_start=self._from_start)

    def _install_watches(self) -> None:
        # Behind the pins: what those give is no seed of the program's.
        for name, notice in (("random", notice_random), ("torch", notice_torch)):
            self._watch_when_imported(name, functools.partial(notice, self.noticed))
        for name, watch in WATCHES:
            self._watch_when_imported(name, functools.partial(watch, self.seeds))

    def _watch_when_imported(self, name: str, watch: Callable[[ModuleType], None]) -> None:
        when_imported(name, lambda module: self._attempt(f"seeds.{name}", lambda: watch(module)))

    def _watch_exceptions(self) -> None:
        previous = sys.excepthook

        def excepthook(
            kind: type[BaseException], error: BaseException, trace: TracebackType | None
        ) -> None:
            self.error = _described(kind, error)
            self.was_interrupted = issubclass(kind, KeyboardInterrupt)
            previous(kind, error, trace)
            tell_of_error(error, self._tell)

        sys.excepthook = excepthook

    def _attempt(self, where: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self._note(where, error)


def _described(kind: type[BaseException], error: BaseException) -> str:
    try:
        return f"{kind.__name__}: {error}"[:1000]
    except Exception:
        return kind.__name__
