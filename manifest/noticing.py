"""Generators that the program makes while it is recorded, noticed where it makes or seeds them.

A run keeps a digest of each that lives when training begins. Of what NumPy makes, nothing can be
noticed: its generators take no weak references.
"""

from __future__ import annotations

import functools
import sys
import threading
import weakref
from collections.abc import Collection
from types import FrameType, ModuleType
from typing import Any

from manifest import states
from manifest.canonical import Json, failed
from manifest.methods import replace_method
from manifest.places import first_outside, is_within, shown_place

_MOST_PLACES = 64
_MOST_AT_A_PLACE = 16

_Place = tuple[str, str, int]


class Noticed:
    """The generators that code of the project has made in this process."""

    def __init__(self) -> None:
        self._root: str | None = None
        self._places: dict[_Place, _Made] = {}
        self._is_of_project: dict[str, bool] = {}

    def begin(self, root: str) -> None:
        """Notice those that code in this folder makes, from now on."""
        self._root = root
        self._places, self._is_of_project = {}, {}

    def end(self) -> None:
        """Notice no more."""
        self._root = None

    def add(self, kind: str, generator: object, frame: FrameType | None) -> None:
        """Notice a generator that is made or seeded at `frame`; never raises."""
        try:
            if self._root is not None and frame is not None:
                self._add(kind, generator, frame, self._root)
        except Exception:  # a program must get its generator
            pass

    def digests(self, *, but: Collection[int] = ()) -> dict[str, Json]:
        """What is kept of the generators that live, but for those with these ids."""
        return {
            name: {"kind": kind, "digest": _digest(generator)}
            for kind, name, generator, _ in self.living()
            if id(generator) not in but
        }

    def living(self) -> list[tuple[str, str, object, bool]]:
        """Those that live: of which kind, by which name, whether this thread made or seeded it."""
        return [
            (kind, f"{made.name}#{ordinal}" if ordinal else made.name, generator, is_mine)
            for (kind, _, _), made in list(self._places.items())
            for ordinal, generator, is_mine in made.living()
        ]

    def _add(self, kind: str, generator: object, frame: FrameType, root: str) -> None:
        path = frame.f_code.co_filename
        if path not in self._is_of_project:
            self._is_of_project[path] = is_within(path, root)
        if not self._is_of_project[path]:
            return
        place = (kind, path, frame.f_lineno)
        made = self._places.get(place)
        if made is None and len(self._places) < _MOST_PLACES:
            name = f"{kind} {shown_place(path, frame.f_lineno, root)}"
            made = self._places[place] = _Made(name)
        if made is not None:
            made.add(generator)


class _Made:
    """What was made at one place, in order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._count = 0
        self._references: list[tuple[int, weakref.ref[object], int]] = []

    def add(self, generator: object) -> None:
        if any(reference() is generator for _, reference, _ in self._references):
            return
        ordinal, self._count = self._count, self._count + 1
        if len(self._references) >= _MOST_AT_A_PLACE:
            self._references = [each for each in self._references if each[1]() is not None]
        if len(self._references) < _MOST_AT_A_PLACE:
            self._references.append((ordinal, weakref.ref(generator), threading.get_ident()))

    def living(self) -> list[tuple[int, object, bool]]:
        present = threading.get_ident()
        return [
            (ordinal, generator, thread == present)
            for ordinal, reference, thread in self._references
            if (generator := reference()) is not None
        ]


def notice_random(noticed: Noticed, random: ModuleType) -> None:
    """Notice every `random.Random`, of any subclass that runs its constructor."""
    original, getstate = random.Random.__init__, random.Random.getstate

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 -- what it replaces
        original(self, *args, **kwargs)
        if type(self).getstate is getstate:  # SystemRandom has no state
            noticed.add("random.Random", self, first_outside(sys._getframe(1), ("random",)))

    random.Random.__init__ = __init__


def notice_torch(noticed: Noticed, torch: ModuleType) -> None:
    """Notice every `torch.Generator` that is seeded; one that is not starts from a constant."""
    generator = torch._C.Generator
    original = vars(generator)["manual_seed"]

    @functools.wraps(original)
    def manual_seed(self: Any, seed: Any, /) -> Any:
        result = original(self, seed)
        noticed.add("torch.Generator", self, first_outside(sys._getframe(1), ("manifest",)))
        return result

    replace_method(generator, "manual_seed", manual_seed)


def _digest(generator: object) -> Json:
    try:
        return states.digest_of(generator)
    except Exception as error:
        return failed(error)
