"""What watches PyTorch for a recorder: steps of optimizers, loaders, precisions of autocast."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from manifest.canonical import Json

if TYPE_CHECKING:
    from manifest.pytorch.loaders import Loaders
    from manifest.pytorch.watching import Watcher


class Listener(Protocol):
    """Whoever writes down what is seen."""

    root: Path
    """Of the project."""

    def section(self, name: str, values: dict[str, Json]) -> None:
        """Record facts of one section."""

    def note(self, where: str, what: object) -> None:
        """Record that something could not be done."""

    def guarded(self, where: str) -> AbstractContextManager[None]:
        """Keep whatever goes wrong inside away from the program."""

    def trail_path(self) -> Path | None:
        """Where the trail of this process is to lie; None once there is none."""

    def first_step(self) -> None:
        """The first step of this process is over."""

    def own_generators(self) -> list[tuple[str, object]]:
        """Generators of the program's own whose states belong to each step, by name."""

    def named_generators(self) -> Mapping[str, Any]:
        """Those of them that the program has named."""

    def stop_program(self) -> None:
        """End the program here."""


class Training:
    """The watchers of one process, there from the moment it has imported torch."""

    def __init__(self, listener: Listener) -> None:
        self.loaders: Loaders | None = None
        self._steps: Watcher | None = None
        self._listener = listener

    def begin(self) -> None:
        """Watch, in the place of whatever an earlier recorder put in."""
        for where, watch in (
            ("loaders", self._watch_loaders),
            ("training", self._watch_autocast),
            ("trail", self._watch_steps),
        ):
            with self._listener.guarded(where):
                watch()

    @property
    def steps(self) -> int | None:
        """How many steps are over; None where nothing is watched."""
        return None if self._steps is None else self._steps.steps

    def step(self, loss: object, model: object) -> None:
        """End a step by hand, where no optimizer of PyTorch does."""
        if self._steps is not None:
            with self._listener.guarded("trail"):
                self._steps.step(loss=loss, model=model)

    def look_for_generators(self) -> None:
        """Ask for the program's own generators once more, at the next step."""
        if self._steps is not None:
            self._steps.look_for_generators()

    def finish_steps(self) -> None:
        """Write what is left of the trail."""
        if self._steps is not None:
            with self._listener.guarded("trail"):
                self._steps.finish()

    def finish_loaders(self) -> None:
        """Tell how far loaders came."""
        if self.loaders is not None:
            with self._listener.guarded("loaders"):
                self.loaders.finish()

    def _watch_steps(self) -> None:
        from manifest.pytorch.watching import Watcher

        listener = self._listener
        make: Callable[..., Watcher] = Watcher
        if window := _window(os.environ.get("MANIFEST_DENSE")):
            from manifest.pytorch.operating import DenseWatcher

            make = functools.partial(DenseWatcher, str(listener.root), window)
        self._steps = make(
            listener.trail_path,
            on_note=listener.note,
            on_optimizer=self._optimizer_seen,
            on_first_step=listener.first_step,
            own_generators=listener.own_generators,
        )
        until = _number(os.environ.get("MANIFEST_UNTIL"))
        self._steps.install(until=until, on_until=listener.stop_program)

    def _watch_loaders(self) -> None:
        from manifest.pytorch.loaders import Loaders

        self.loaders = Loaders(
            str(self._listener.root),
            on_facts=self._loaders_seen,
            on_note=self._listener.note,
            tracked=self._listener.named_generators,
        )
        self.loaders.watch()

    def _watch_autocast(self) -> None:
        from manifest.pytorch.autocasting import watch_autocast

        watch_autocast(self._precision_seen)

    def _precision_seen(self, device: str, precision: str) -> None:
        self._listener.section("training", {"autocast": {device: precision}})

    def _optimizer_seen(self, name: str, facts: dict[str, Json]) -> None:
        # Where no region of autocast follows, the map says that there was none.
        self._listener.section("training", {name: facts, "autocast": {}})

    def _loaders_seen(self, facts: dict[str, Json]) -> None:
        self._listener.section("loaders", facts)
        self.look_for_generators()


def import_watchers() -> None:
    """Import what watches PyTorch; the program has imported torch."""
    from manifest.pytorch import autocasting, loaders, watching  # noqa: F401


def _window(text: str | None) -> range:
    start, _, stop = (text or "").partition(":")
    return range(_number(start) or 0, _number(stop) or 0)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
