"""Loaders that the program iterates: what decides which samples they give, in which order.

Every iterator that PyTorch makes, of whatever subclass of `DataLoader` or wrapper around one,
begins in one constructor. There the loader is described; it is never iterated nor drawn from.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any

from torch.utils.data import dataloader, get_worker_info

from manifest.canonical import Json
from manifest.importing import when_imported
from manifest.places import first_outside, first_within, shown_place
from manifest.pytorch.describing import Facts, Iterated, described, epoch_of, generators_of
from manifest.pytorch.hooks import keep_from_compiler
from manifest.pytorch.identities import Identity
from manifest.pytorch.moments import Moment, Named
from manifest.pytorch.positions import LAST_INDEX, Positions

_MOST_LOADERS = 64
_LIBRARIES = ("manifest", "torch", "torchdata")
_OF_POSITIONS = (
    Positions.made,
    Positions.before,
    Positions.after,
    Positions.first_asked,
    Positions.asked,
    Positions.exhausted,
    Positions.failed,
)
STATEFUL = "torchdata.stateful_dataloader.stateful_dataloader"

_watching: Loaders | None = None
_is_installed = False


class Loaders:
    """The loaders of this process, in the order in which they are first iterated.

    Args:
        root: The folder of the project, to which places are relative.
        on_facts: Told what is learnt of a loader, by its name, when it is first iterated and when
            watching ends.
        on_note: Told, by place and error, of what could not be learnt.
        tracked: Asked for the generators that the program has named so far.
    """

    def __init__(
        self,
        root: str,
        *,
        on_facts: Callable[[Facts], None],
        on_note: Callable[[str, object], None],
        tracked: Callable[[], Named] = dict,
    ) -> None:
        self._root = root
        self._on_facts = on_facts
        self._on_note = on_note
        self._tracked = tracked
        self.forget()

    def watch(self) -> None:
        """Describe loaders from now on, in the place of any earlier watcher."""
        global _watching
        _install()
        _watching = self

    def finish(self) -> None:
        """Say how often each loader was iterated, and describe no more."""
        global _watching
        if _watching is self:
            _watching = None
        again = {each.name: each.counts() for each in self._loaders if each.iterators > 1}
        if again:
            self._on_facts(again)
        self.forget()

    def forget(self) -> None:
        """Begin anew: the loaders of a forked child have names of their own."""
        self._loaders: list[Iterated] = []
        self.positions = Positions(self._tracked, self.place, self._on_note)

    def place(self, frame: FrameType | None) -> Json:
        """Where in the program a frame is."""
        found = first_within(frame, self._root) or first_outside(frame, _LIBRARIES)
        return found and shown_place(found.f_code.co_filename, found.f_lineno, self._root)

    def generators(self) -> list[tuple[str, Any, bool]]:
        """Those of the living loaders, by name, and whether this thread draws from them."""
        found = []
        for each in self._loaders:
            is_mine = each.thread == threading.get_ident()
            found += [
                (f"{each.name}.{part}", g, is_mine) for part, g in generators_of(each.loader())
            ]
        return found

    def known(self, loader: Any) -> Identity | None:
        """Which loader this is, if it was iterated and described before."""
        identity = self.positions.identities.of(loader)
        return identity if identity is not None and identity.is_introduced else None

    def meet(self, loader: Any, frame: FrameType | None) -> Identity | None:
        """Describe a loader that is about to be iterated for the first time; never raises."""
        try:
            identity = self.positions.identified(loader, frame)
            identity.iterated = self._described(loader, frame)
            return identity
        except Exception as error:
            self._on_note("loaders", error)
            return None

    def after(self, identity: Identity, began: Moment | None, loader: Any, iterator: Any) -> None:
        """An iterator was made; never raises."""
        try:
            epoch, iterated = epoch_of(loader), identity.iterated
            if began is not None:
                self.positions.after(identity, began, iterator, epoch)
            if iterated is not None:
                iterated.add(iterator, epoch)
                if not identity.is_introduced:
                    self._introduce(identity, iterated)
        except Exception as error:
            self._on_note("loaders", error)

    def _described(self, loader: Any, frame: FrameType | None) -> Iterated | None:
        if len(self._loaders) >= _MOST_LOADERS:
            return None
        try:
            made = self.positions.place_of(loader)
            facts = {"place": self.place(frame), "made": made, **described(loader)}
            return Iterated(loader, facts)
        except Exception as error:
            self._on_note("loaders", error)
            return None

    def _introduce(self, identity: Identity, iterated: Iterated) -> None:
        identity.is_introduced = True
        iterated.name = f"loader.{len(self._loaders)}"
        self._loaders.append(iterated)
        self._on_facts({iterated.name: {**iterated.facts, **iterated.counts()}})


def watching() -> Loaders | None:
    """Who describes loaders now."""
    return _watching


def _install() -> None:
    global _is_installed
    if _is_installed:
        return
    _is_installed = True
    for function in (Loaders.known, Loaders.meet, Loaders.after, *_OF_POSITIONS):
        keep_from_compiler(function, with_callees=True)
    iterator, loader = dataloader._BaseDataLoaderIter, dataloader.DataLoader
    iterator.__init__ = _watched(iterator.__init__)  # type: ignore[method-assign]
    iterator.__next__ = _followed(iterator.__next__)  # type: ignore[assignment,method-assign]
    iterator._next_index = _kept(iterator._next_index)  # type: ignore[method-assign]
    loader.__init__ = _noticed(loader.__init__)  # type: ignore[method-assign]
    when_imported(STATEFUL, _stateful_imported)
    os.register_at_fork(after_in_child=_forked)


def _stateful_imported(module: ModuleType) -> None:
    # Derived from `DataLoader`, but its constructor calls no other.
    loader = getattr(module, "StatefulDataLoader", None)
    if loader is not None:
        loader.__init__ = _noticed(loader.__init__)


def _watched(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def __init__(self: Any, loader: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 -- its name
        watching = _watching
        if watching is None or get_worker_info() is not None:
            original(self, loader, *args, **kwargs)
            return
        identity = watching.known(loader) or watching.meet(loader, sys._getframe(1))
        if identity is None:
            original(self, loader, *args, **kwargs)
            return
        began = watching.positions.before(loader, identity)
        original(self, loader, *args, **kwargs)
        watching.after(identity, began, loader, self)

    keep_from_compiler(__init__, with_callees=False)
    return __init__


def _followed(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(original)
    def __next__(self: Any) -> Any:  # noqa: N807 -- the name it replaces
        if _watching is not None:
            if not self._num_yielded:
                _watching.positions.first_asked(self)
            if _watching.positions.is_any_ahead:
                _watching.positions.asked(self)
        try:
            return original(self)
        except StopIteration:
            if _watching is not None:
                _watching.positions.exhausted(self)
            raise
        except BaseException:
            if _watching is not None:
                _watching.positions.failed(self)
            raise

    keep_from_compiler(__next__, with_callees=False)
    return __next__


def _kept(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(original)
    def _next_index(self: Any) -> Any:
        index = original(self)
        if _watching is not None:
            # On the iterator, as workers are given their first ones while that is made.
            setattr(self, LAST_INDEX, index)
        return index

    keep_from_compiler(_next_index, with_callees=False)
    return _next_index


def _noticed(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 -- the name it replaces
        original(self, *args, **kwargs)
        if _watching is not None:
            _watching.positions.made(self, sys._getframe(1))

    keep_from_compiler(__init__, with_callees=False)
    return __init__


def _forked() -> None:
    if _watching is not None:
        _watching.forget()
