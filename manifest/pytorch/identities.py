"""Which loader is which: by the name that the program gave it, or by the place where it was made.

A program that is started again makes its loaders at the same places again. Where one place makes
several, those that live are counted in the order in which they were made.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from typing import Any

from manifest.pytorch.byidentity import ByIdentity, Known
from manifest.pytorch.describing import Facts, Iterated, shape_of
from manifest.pytorch.moments import OwnGenerators


class Identity(Known):
    """One loader that the program made."""

    __slots__ = (
        "_own",
        "_shape",
        "ahead",
        "is_introduced",
        "iterated",
        "name",
        "number",
        "place",
    )

    def begin(self, place: str, number: int) -> None:
        """Know where it was made, as which of all."""
        self.name: str | None = None
        self.ahead = 0
        """How many batches a wrapper around it holds that the program has not been given yet."""
        self.place = place
        self.number = number
        self.iterated: Iterated | None = None
        """What is to be said of it in the manifest, once it is iterated."""
        self.is_introduced = False
        self._own: OwnGenerators | None = None
        self._shape: Facts | None = None

    def loader(self) -> Any:
        """The loader; None if it is gone."""
        return self()

    def own(self, loader: Any) -> OwnGenerators:
        """The generators that the loader keeps itself."""
        if self._own is None:
            self.shape(loader)  # for when the loader is gone, as these
            self._own = OwnGenerators(loader)
        return self._own

    def shape(self, loader: Any) -> Facts:
        """What tells it from other loaders; now, as a dataset can grow from epoch to epoch."""
        self._shape = shape_of(loader)
        return self._shape

    @property
    def known_own(self) -> OwnGenerators | None:
        """The generators that it keeps itself, once it was looked at."""
        return self._own

    @property
    def known_shape(self) -> Facts:
        """What tells it from other loaders, when it was last looked at."""
        return self._shape or {}

    def is_like(self, name: str | None, place: str) -> bool:
        """Whether it has this name or, as long as neither has one, was made at this place."""
        if name is not None or self.name is not None:
            return bool(self.name == name)
        return bool(self.place == place)

    def __str__(self) -> str:
        return self.name if self.name is not None else f"the loader {self.place}"


class Identities:
    """The loaders of this process that live."""

    def __init__(self) -> None:
        self._known: ByIdentity[Identity] = ByIdentity()
        self.of = self._known.of
        """What is known of a loader; None if it was not seen yet."""
        self._numbers = itertools.count()

    def add(self, loader: Any, place: str) -> Identity:
        """Know a loader from now on, for as long as it lives."""
        identity = Identity(loader, self._known.forget)
        identity.begin(place, next(self._numbers))
        self._known.add(loader, identity)
        return identity

    def living(self) -> list[Identity]:
        """The loaders that live, in the order in which they were made."""
        return sorted(self._known.living(), key=lambda each: each.number)


def ordinal(identity: Identity, among: Collection[Identity]) -> int:
    """How many of these were made before it at the same place, or under the same name."""
    return sum(
        1
        for other in among
        if other.number < identity.number and other.is_like(identity.name, identity.place)
    )
