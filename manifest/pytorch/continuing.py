"""Continue the loaders of a program where a snapshot found them.

Each is continued when the program iterates it next: the generators get the states from which the
recorded iterator began, an iterator is made, as many batches are passed over as were delivered, and
the generators get back the states that the program goes on with.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import Any

from torch.utils.data import dataloader, get_worker_info

from manifest.canonical import Json
from manifest.errors import StateNotRestorable
from manifest.importing import when_imported
from manifest.pytorch.describing import Facts, epoch_of
from manifest.pytorch.hooks import keep_from_compiler
from manifest.pytorch.identities import Identity, ordinal
from manifest.pytorch.loaders import STATEFUL, Loaders
from manifest.pytorch.moments import Moment, Named
from manifest.pytorch.positions import last_index_of
from manifest.pytorch.statedicts import decoded_state_dict
from manifest.restoring import RestoredItem

_continuing: Continuing | None = None
_is_installed = False


@dataclass(slots=True)
class Place:
    """How far a recorded iterator was."""

    count: int
    base_seed: int
    epoch: int | None
    began: Moment
    first: Moment | None
    refusal: str | None
    ahead: int = 0
    """How many of them a wrapper held, which the program had not been given yet."""

    before: Sequence[Moment] = ()
    """When each of those was asked for; empty where workers made them."""

    last_index: str | None = None
    """A digest of what the sampler had given last; None in snapshots of earlier versions."""


@dataclass(slots=True)
class Recorded:
    """A loader of a snapshot, which waits for the program to make or iterate it again."""

    name: str | None
    place: str
    ordinal: int
    shape: Facts
    put_back_own: Callable[[Named, list[Any]], None]
    """Gives the loader's own generators their states at the snapshot, but for those of the list,
    which had theirs, and adds them to it."""

    at_snapshot: Mapping[str, bytes]
    """All states at the snapshot, named as `flat` does."""

    position: Place | None = None
    state_dict: Json = None
    put_back_to: Identity | None = None
    """The loader that has those states by now; an older one, perhaps, that is still there."""

    def __str__(self) -> str:
        return self.name if self.name is not None else f"the loader {self.place}"


class Continuing:
    """The loaders of one snapshot, each until it is continued.

    Args:
        loaders: The loaders of this process.
        recorded: Those of the snapshot.
        put_back_all: Gives every generator its state at the snapshot.
        done: Generators that have their states already; several loaders may draw from one.
        on_outcome: Told of each loader what came of it.
        is_strict: Whether a loader that cannot be continued raises where it is iterated.
    """

    def __init__(
        self,
        loaders: Loaders,
        recorded: list[Recorded],
        *,
        put_back_all: Callable[[], None],
        done: Iterable[Any],
        on_outcome: Callable[[RestoredItem], None],
        is_strict: bool,
    ) -> None:
        self._loaders = loaders
        self._waiting = recorded
        self._put_back_all = put_back_all
        self._done = list(done)
        self._on_outcome = on_outcome
        self._is_strict = is_strict
        self._is_first = True
        self._is_asked = False

    def begin(self) -> None:
        """Continue loaders from now on, in the place of an earlier snapshot."""
        global _continuing
        _install()
        _continuing = self

    def end(self) -> None:
        """Continue no more, and say what was not continued."""
        global _continuing
        if _continuing is self:
            _continuing = None
        for each in self._waiting:
            if each.position is not None:
                reason = "the program did not iterate it again"
                self._on_outcome(RestoredItem(str(each), "skipped", reason))
        self._waiting = []

    def put_back_own(self) -> None:
        """Give the generators that loaders keep themselves their states at the snapshot.

        Raises:
            StateNotRestorable: A state does not have the form of its generator.
        """
        # The newest first: in a process that trains twice, older ones are of the training before.
        for identity in reversed(self._loaders.positions.identities.living()):
            loader = identity.loader()
            recorded = None if loader is None else self._match(identity, loader)
            if recorded is not None and recorded.put_back_to is None:
                self._put_back(recorded, identity, loader)

    def iterator(self, loader: Any, original: Callable[[Any], Any], frame: FrameType | None) -> Any:
        """The iterator that the program asked for, brought to where it was.

        Raises:
            StateNotRestorable: It cannot be, and nothing less will do.
        """
        identity = self._loaders.positions.identified(loader, frame)
        recorded = self._match(identity, loader)
        if recorded is None:
            return original(loader)
        self._waiting.remove(recorded)
        moments, own = self._loaders.positions.moments, identity.own(loader)
        before = moments.now(own.named())
        try:
            self._put_back(recorded, identity, loader)
            if recorded.position is None:
                return original(loader)
            before = moments.now(own.named())
            iterator, held, reason = self._continued(
                recorded, recorded.position, identity, loader, original
            )
        except Exception as error:
            reason = str(error) if isinstance(error, StateNotRestorable) else repr(error)
            self._on_outcome(RestoredItem(str(recorded), "failed", reason[:500]))
            if self._is_strict:
                raise
            moments.put_back(before, own.named())
            return original(loader)
        moments.put_back(before, own.named())
        # Before its first loader goes on, what the program ran is no part of the run; nor what it
        # runs until one is asked for a batch, as frameworks do that make iterators ahead.
        if self._is_first:
            self._is_first = False
            self._put_back_all()
        if held or not self._is_asked:
            iterator._next_data = _Resumed(iterator, held, self._asked)
        self._on_outcome(RestoredItem(str(recorded), "restored", reason))
        return iterator

    def _asked(self) -> None:
        # Of several, whichever the program asks first: what that one draws is part of the run.
        if not self._is_asked:
            self._is_asked = True
            self._put_back_all()

    def _put_back(self, recorded: Recorded, identity: Identity, loader: Any) -> None:
        if recorded.put_back_to is not identity:
            recorded.put_back_own(identity.own(loader).named(), self._done)
            recorded.put_back_to = identity

    def _match(self, identity: Identity, loader: Any) -> Recorded | None:
        alike = [each for each in self._waiting if identity.is_like(each.name, each.place)]
        if not alike:
            return None
        shape = identity.shape(loader)
        same = [each for each in alike if each.shape == shape]
        if len(same) == 1:
            return same[0]
        number = ordinal(identity, self._loaders.positions.known())
        return next((each for each in alike if each.ordinal == number), None)

    def _continued(
        self,
        recorded: Recorded,
        at: Place,
        identity: Identity,
        loader: Any,
        original: Callable[[Any], Any],
    ) -> tuple[Any, list[Any], str]:
        _check_shape(recorded.shape, identity.shape(loader))
        if at.epoch != epoch_of(loader):
            raise StateNotRestorable(
                f"its sampler was in epoch {at.epoch}, here it is in epoch {epoch_of(loader)}: "
                "call set_epoch() before the loader is iterated"
            )
        if _depends_on_state_dict(recorded, loader):
            return self._by_state_dict(recorded, at, loader, original)
        if at.refusal is not None:
            raise StateNotRestorable(at.refusal)
        own, moments = identity.own(loader), self._loaders.positions.moments
        if "next_iter_state" in vars(loader):
            loader.next_iter_state = None  # the program's own way to continue, less exact than this
        moments.put_back(at.began, own.named())
        iterator = original(loader)
        if iterator._base_seed != at.base_seed:
            raise StateNotRestorable("its iterator does not begin as the recorded one did")
        if at.first is not None:
            moments.put_back(at.first, own.named())
        drawn = self._pass_over(iterator, at.count - at.ahead, own.named)
        held = self._held(iterator, at, own.named)
        now = self._states(own.named)
        shared = [name for name in drawn if now.get(name) != recorded.at_snapshot.get(name)]
        if shared:
            raise StateNotRestorable(
                f"it draws from {', '.join(sorted(shared))} as it goes, and so does the program: "
                "which numbers were whose was not recorded"
            )
        if at.last_index is not None and last_index_of(iterator) != at.last_index:
            raise StateNotRestorable(
                "its sampler gives other samples than it did: what it goes by is not in the "
                "snapshot, such as a counter of its own or a generator that it keeps elsewhere; "
                "keep generators as its attributes, or track them"
            )
        position = self._loaders.positions.of(iterator)
        if position is not None:
            position.first = at.first
            position.rounds = min(at.count, 1)
        return iterator, held, f"continues after {at.count - at.ahead} batches"

    def _by_state_dict(
        self, recorded: Recorded, at: Place, loader: Any, original: Callable[[Any], Any]
    ) -> tuple[Any, list[Any], str]:
        if at.ahead:
            raise StateNotRestorable("a wrapper holds batches that its state_dict() passes over")
        if loader.num_workers and self._is_strict:
            raise StateNotRestorable(
                "it continues from its state_dict(), which does not hold the random streams of "
                "its workers"
            )
        loader.load_state_dict(decoded_state_dict(recorded.state_dict))
        iterator = original(loader)
        return iterator, [], f"continues after {at.count} batches, from its state_dict()"

    def _held(self, iterator: Any, at: Place, own: Callable[[], Named]) -> list[Any]:
        """The batches that a wrapper held, made as they were."""
        if iterator._num_workers or not at.ahead:
            return [iterator._next_data() for _ in range(at.ahead)]
        if len(at.before) < at.ahead:
            raise StateNotRestorable("it is not known what the batches came from that were held")
        held = []
        for moment in at.before[-at.ahead :]:
            self._loaders.positions.moments.put_back(moment, own())
            held.append(iterator._next_data())
        return held

    def _pass_over(self, iterator: Any, count: int, own: Callable[[], Named]) -> set[str]:
        """Pass over batches.

        Returns:
            The generators that all but the first of them drew from.
        """
        # Without workers, and of samples that lie still, only the order need be gone through.
        is_order_enough = not iterator._num_workers and not iterator._dataset_kind
        step = iterator._next_index if is_order_enough else iterator._next_data
        settled = None if not iterator._num_workers else self._states(own)
        for index in range(count):
            try:
                step()
            except StopIteration:
                reason = f"it ends after {index} batches, {count} were delivered"
                raise StateNotRestorable(reason) from None
            iterator._num_yielded += 1
            settled = settled or self._states(own)
        if settled is None:
            return set()
        return {name for name, state in self._states(own).items() if state != settled.get(name)}

    def _states(self, own: Callable[[], Named]) -> dict[str, bytes]:
        return flat(self._loaders.positions.moments.now(own()))


class _Resumed:
    """Stands in the `_next_data` of an iterator for the first batches that it gives again.

    Args:
        iterator: Which.
        held: Batches that it gives first.
        work: To be done before each of them.
    """

    def __init__(self, iterator: Any, held: Sequence[Any], work: Callable[[], None]) -> None:
        self._iterator = weakref.ref(iterator)  # which holds this, and would not go
        self._held = deque(held)
        self._work = work

    def __call__(self) -> Any:
        self._work()
        if self._held:
            return self._held.popleft()
        iterator: Any = self._iterator()
        del iterator._next_data
        return iterator._next_data()


def flat(moment: Moment) -> dict[str, bytes]:
    """The states of a moment by one name each."""
    return moment.generators | {f"its {name}": state for name, state in moment.own.items()}


def _check_shape(recorded: Facts, found: Facts) -> None:
    for name in sorted(recorded.keys() | found.keys()):
        if recorded.get(name) != found.get(name):
            raise StateNotRestorable(
                f"{name} was {str(recorded.get(name))[:80]}, here it is {str(found.get(name))[:80]}"
            )


def _depends_on_state_dict(recorded: Recorded, loader: Any) -> bool:
    if recorded.state_dict is None or recorded.position is None:
        return False
    # A data set with a state of its own may have been anywhere when the iterator began.
    is_stateful = hasattr(type(loader.dataset), "load_state_dict")
    return is_stateful or recorded.position.refusal is not None


def _install() -> None:
    global _is_installed
    if _is_installed:
        return
    _is_installed = True
    keep_from_compiler(Continuing.iterator, with_callees=True)
    loader: Any = dataloader.DataLoader
    loader._get_iterator = _continued_iterator(loader._get_iterator)
    when_imported(STATEFUL, _stateful_imported)


def _stateful_imported(module: ModuleType) -> None:
    loader = getattr(module, "StatefulDataLoader", None)
    if loader is not None:
        loader._get_iterator = _continued_iterator(loader._get_iterator)


def _continued_iterator(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(original)
    def _get_iterator(self: Any) -> Any:
        continuing = _continuing
        if continuing is None or get_worker_info() is not None:
            return original(self)
        return continuing.iterator(self, original, sys._getframe(1))

    keep_from_compiler(_get_iterator, with_callees=False)
    return _get_iterator
