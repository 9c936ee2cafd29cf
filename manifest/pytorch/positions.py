"""How far each iterator of a loader is, and what it began from.

The order that a sampler gives, and what workers draw, follow from the states of generators when an
iterator is made and, as samplers without workers draw their order only then, when it is first
asked. With these two moments an iterator can be made again and brought to where it was.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import FrameType, SimpleNamespace
from typing import Any

from torch.utils.data import get_worker_info

from manifest.pytorch.batches import Gathering, combined
from manifest.pytorch.byidentity import ByIdentity, Known
from manifest.pytorch.identities import Identities, Identity
from manifest.pytorch.moments import Moment, Moments, Named

_MADE = "made at "
LAST_INDEX = "_manifest_last_index"
"""The attribute of an iterator that holds what its sampler gave last."""


def _references(loader: Any) -> int:
    """How many references there are to the iterator that a loader keeps, as seen from here."""
    kept = loader._iterator
    return sys.getrefcount(kept)


# Interpreters count differently what names and calls hold, so that one is counted here.
_OF_LOADER_ALONE = _references(SimpleNamespace(_iterator=object()))


class Position(Known):
    """One iterator of a loader."""

    __slots__ = (
        "before",
        "began",
        "epoch",
        "failed_at",
        "first",
        "identity",
        "is_exhausted",
        "is_uncertain",
        "rounds",
    )

    def begin(self, identity: Identity, began: Moment, epoch: int | None) -> None:
        """Know of which loader it is, and when it was made."""
        self.identity = identity
        self.began = began
        self.epoch = epoch
        self.first: Moment | None = None
        """When the first batch was asked for; the same as `began` where workers had asked."""
        self.before: list[Moment] = []
        """When each of the last batches was asked for that a wrapper may hold."""
        self.is_exhausted = False
        self.failed_at: int | None = None
        """How many batches it had given when making one failed."""
        self.is_uncertain = False
        """Whether what it took for a batch that failed is not made up for by that number."""
        self.rounds = 0

    def iterator(self) -> Any:
        """The iterator; None if it is gone."""
        return self()

    def own(self) -> Named:
        """The generators that the loader keeps itself."""
        own = self.identity.known_own
        return {} if own is None else own.named()

    def is_abandoned(self) -> bool:
        """Whether nobody but the loader itself holds the iterator."""
        loader = self.identity.loader()
        if getattr(loader, "_iterator", None) is None or self.iterator() is not loader._iterator:
            return False
        return _references(loader) <= _OF_LOADER_ALONE

    def refusal(self, *, is_over: bool = False) -> str | None:
        """Why it cannot be continued; None if it can.

        Args:
            is_over: Whether it is to begin anew, whatever it still has to give.
        """
        is_over = is_over or self.is_exhausted or self.is_abandoned()
        iterator: Any = self.iterator()
        if iterator._persistent_workers and (is_over or self.rounds > 1):
            return (
                "its workers live on since an earlier round (persistent_workers=True), and their "
                "random streams cannot be put back"
            )
        if iterator._num_workers and not getattr(iterator, "_in_order", True):
            return "it gives batches in the order in which workers are ready (in_order=False)"
        is_behind = self.failed_at is not None and iterator._num_yielded > self.failed_at
        if not is_over and (self.is_uncertain or is_behind):
            return "making one of its batches failed, and what was drawn for that is not recorded"
        return None


class Positions:
    """The iterators of this process that live.

    Args:
        tracked: Asked for the generators that the program has named so far.
        place: Where in the program a frame is.
        on_note: Told, by place and error, of what could not be learnt.
    """

    def __init__(
        self,
        tracked: Callable[[], Named],
        place: Callable[[FrameType | None], Any],
        on_note: Callable[[str, object], None],
    ) -> None:
        self.moments = Moments(tracked)
        self.identities = Identities()
        self.is_any_ahead = False
        """Whether a wrapper around some loader holds batches."""
        self._place = place
        self._on_note = on_note
        self._known: ByIdentity[Position] = ByIdentity()

    def made(self, loader: Any, frame: FrameType | None) -> None:
        """A loader was made; never raises."""
        try:
            if get_worker_info() is None and self.identities.of(loader) is None:
                place = self._place(_above_constructors(loader, frame))
                self.identities.add(loader, f"{_MADE}{place}")
        except Exception as error:
            self._on_note("snapshots", error)

    def place_of(self, loader: Any) -> str | None:
        """Where a loader was made; None if that was before anyone listened."""
        known = self.identities.of(loader)
        if known is None or not known.place.startswith(_MADE):
            return None
        return known.place.removeprefix(_MADE)

    def name(self, loader: Any, name: str) -> None:
        """Know a loader by this name from now on."""
        identity = self.identities.of(loader) or self.identities.add(loader, "named")
        identity.name = name

    def propose(self, loader: Any, name: str, *, ahead: int) -> None:
        """Know a loader by this name, unless it has one, and no other that had it before.

        Args:
            loader: Which.
            name: What to call it.
            ahead: How many batches a wrapper around it holds for the program.
        """
        known = self.identities.of(loader) or self.identities.add(loader, "named")
        if known.name is None:
            for other in self.identities.living():
                if other.name == name:
                    other.name = None
            known.name = name
        if ahead:
            known.ahead = ahead
            self.is_any_ahead = True

    def identified(self, loader: Any, frame: FrameType | None) -> Identity:
        """Which loader this is; one that was made before anyone listened is known by its use."""
        known = self.identities.of(loader)
        return known or self.identities.add(loader, f"iterated at {self._place(frame)}")

    def before(self, loader: Any, identity: Identity) -> Moment | None:
        """The moment before an iterator is made; never raises."""
        try:
            return self.moments.now(identity.own(loader).named())
        except Exception as error:
            self._on_note("snapshots", error)
            return None

    def after(self, identity: Identity, began: Moment, iterator: Any, epoch: int | None) -> None:
        """The iterator is there; never raises."""
        try:
            position = Position(iterator, self._known.forget)
            position.begin(identity, began, epoch)
            self._known.add(iterator, position)
        except Exception as error:
            self._on_note("snapshots", error)

    def of(self, iterator: Any) -> Position | None:
        """How far an iterator is; None if it was not seen."""
        return self._known.of(iterator)

    def first_asked(self, iterator: Any) -> None:
        """An iterator is asked for its first batch; never raises."""
        position = self.of(iterator)
        if position is None:
            return
        try:
            position.is_exhausted = False
            position.rounds += 1
            if not iterator._num_workers:
                position.first = self.moments.now(position.own())
        except Exception as error:
            self._on_note("snapshots", error)

    def asked(self, iterator: Any) -> None:
        """An iterator is asked for a batch, which a wrapper may hold; never raises."""
        position = self.of(iterator)
        if position is None or not position.identity.ahead or iterator._num_workers:
            return
        try:
            del position.before[: 1 - position.identity.ahead or None]
            position.before.append(self.moments.now(position.own()))
        except Exception as error:
            self._on_note("snapshots", error)

    def exhausted(self, iterator: Any) -> None:
        """An iterator has no more to give."""
        position = self.of(iterator)
        if position is not None:
            position.is_exhausted = True

    def failed(self, iterator: Any) -> None:
        """Making a batch failed; what it would have held is lost to an iterator that goes on."""
        position = self.of(iterator)
        if position is None:
            return
        # Workers draw from generators of their own, so that a first failure leaves all in place.
        position.is_uncertain = not iterator._num_workers or position.failed_at is not None
        position.failed_at = iterator._num_yielded

    def current(self) -> Iterator[Position]:
        """Each iterator that the program may still ask, the oldest first."""
        for position in self._known.living():
            # Workers that live on are the loader's, and matter even when nobody asks it now.
            is_over = position.is_exhausted or position.is_abandoned()
            if not is_over or getattr(position.iterator(), "_persistent_workers", False):
                yield position

    def known(self) -> list[Identity]:
        """The loaders that live, and those of which an iterator does."""
        found = {id(each): each for each in self.identities.living()}
        for position in self._known.living():
            found.setdefault(id(position.identity), position.identity)
        return sorted(found.values(), key=lambda each: each.number)


def last_index_of(iterator: Any) -> str | None:
    """A digest of what a sampler gave an iterator last; None if it gave nothing yet."""
    index = getattr(iterator, LAST_INDEX, None)
    if index is None:
        return None
    gathering = Gathering()
    gathering.add(index)
    return combined(gathering.take()).hex()


def _above_constructors(loader: Any, frame: FrameType | None) -> FrameType | None:
    # A class of the program's own is known by where it is used, not by its call of `super()`.
    while frame is not None and frame.f_code.co_name == "__init__":
        names = frame.f_code.co_varnames
        if not names or frame.f_locals.get(names[0]) is not loader:
            break
        frame = frame.f_back
    return frame
