"""Rows on their way to the trail: complete at once, or when an accelerator is done with them."""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor
from torch.optim.optimizer import Optimizer

from manifest.leaves import OWN, SHARED
from manifest.pytorch.batches import arrived, combined
from manifest.pytorch.states import Drawn
from manifest.pytorch.sums import keep_for_ever
from manifest.pytorch.tensors import Watchpoints
from manifest.pytorch.transfers import Number, Reading, Transfer, Words, send, to_host
from manifest.schedule import keeps_leaves
from manifest.streams import UNOBSERVED
from manifest.trail import TrailWriter

_MOST_WAITING = 256
_MOST_UNSENT = 64  # words of some sixteen steps
_LONGEST_SECONDS = 0.1

_HERE = frozenset((list, float, type(None)))

Observed = list[bytes] | Reading | None


class Rows:
    """Writes rows in their order, each once all of it has arrived.

    Args:
        always: The steps at which the fingerprint of every tensor is kept, whatever the schedule.
        transfer: What brings words from an accelerator.
        longest: For how many seconds words may wait for those of further steps.
    """

    def __init__(
        self,
        always: range = range(0),
        transfer: Transfer = to_host,
        longest: float = _LONGEST_SECONDS,
    ) -> None:
        self.count = 0
        self.always = always
        self._transfer = transfer
        self._longest = longest
        self._waiting: deque[Row] = deque()
        self._unsent: list[Words] = []
        self._sent_at = 0.0
        self._known: dict[str, tuple[str, ...]] = {}

    def add(self, row: Row, trail: TrailWriter | None, *, is_last: bool = False) -> None:
        """Take the row of the next step, and write what has arrived."""
        self.count += 1
        if row.is_here():
            if trail is not None and not self._waiting:
                row.write(trail, self._known, is_dense=trail.steps in self.always)
                return
        else:
            self._unsent += row.words()
        self._waiting.append(row)
        self.write(trail, is_last=is_last)

    def write(self, trail: TrailWriter | None, *, is_last: bool = False) -> None:
        """Write what has arrived; wait for all of it if there is nothing to come."""
        self._send(at_once=is_last)
        at_most = 0 if is_last else _MOST_WAITING
        waiting = self._waiting
        while waiting and (len(waiting) > at_most or waiting[0].is_ready()):
            row = waiting.popleft()
            if trail is not None:
                row.write(trail, self._known, is_dense=trail.steps in self.always)

    def _send(self, *, at_once: bool) -> None:
        # A copy takes as long as the sums of a step: it is made for as many steps as may be lost.
        now = time.monotonic()
        if len(self._unsent) >= _MOST_UNSENT or at_once or now > self._sent_at + self._longest:
            self._sent_at = now
            unsent, self._unsent = self._unsent, []
            send(unsent, self._transfer)

    def abandon(self) -> None:
        """Wait for nothing, and never end what waits: these are the rows of another process."""
        keep_for_ever(self._waiting)


@dataclass(slots=True)
class Watched:
    """What is known of an optimizer, which it does not keep alive."""

    optimizer: weakref.ref[Optimizer] | None
    names: tuple[str, ...]
    period: int
    grads: Watchpoints = field(default_factory=Watchpoints)
    params: Watchpoints = field(default_factory=Watchpoints)

    def is_of(self, optimizer: Optimizer, parameters: Sequence[Tensor]) -> bool:
        """Whether this still describes the optimizer."""
        if self.optimizer is None or self.optimizer() is not optimizer:
            return False
        return len(self.names) == len(parameters)


@dataclass(slots=True)
class Row:
    """What was observed in one step."""

    watched: Watched
    rng: Drawn
    batch: Observed
    loss: Observed
    grads: Observed
    params: Observed
    number: float | Number | None = None

    def is_here(self) -> bool:
        """Whether all of it lay in host memory: the way of a training on the processor, short."""
        return _HERE.issuperset(map(type, self._parts()))

    def words(self) -> list[Words]:
        """What of it is on its way from accelerators."""
        away = [each for each in self._parts() if isinstance(each, (Reading, Number))]
        return [words for each in away for words in each.words()]

    def is_ready(self) -> bool:
        """Whether nothing of it is still on its way."""
        return all(words.is_ready() for words in self.words())

    def _parts(self) -> tuple[Observed | float | Number, ...]:
        return self.batch, self.loss, self.grads, self.params, self.number

    def write(
        self, trail: TrailWriter, known: dict[str, tuple[str, ...]], *, is_dense: bool = False
    ) -> None:
        """Append it to the trail, names first.

        Args:
            trail: Where to.
            known: By stream, the generators that the trail last named.
            is_dense: Whether to keep the fingerprint of every tensor, whatever the schedule.
        """
        step = trail.steps
        keeps = is_dense or keeps_leaves(step, self.watched.period)
        if keeps:
            for stream, observed in (("grad", self.grads), ("param", self.params)):
                if digests := arrived(observed):
                    trail.append_leaves(step, stream, self.watched.names, digests)
        number = self.number
        trail.append(
            self._generators(trail, known, keeps=keeps),
            combined(self.batch),
            combined(self.loss),
            combined(self.grads),
            combined(self.params),
            number=number.wait() if isinstance(number, Number) else number,
        )

    def _generators(
        self, trail: TrailWriter, known: dict[str, tuple[str, ...]], *, keeps: bool
    ) -> bytes:
        # A reader has to know which generators a row stands for.
        rng = self.rng
        if not keeps and not rng.own_names and known.get(SHARED) == rng.names:
            return rng.cell()
        for stream, names, digests in (
            (SHARED, rng.names, rng.digests),
            (OWN, rng.own_names, rng.own_digests),
        ):
            if not digests or not (keeps or known.get(stream) != names):
                continue
            if not trail.append_leaves(trail.steps, stream, names, digests):
                return UNOBSERVED
            known[stream] = names
        return rng.cell()
