"""Rows on their way to the trail: complete at once, or when an accelerator is done with them."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor
from torch.optim.optimizer import Optimizer

from manifest.leaves import OWN, SHARED
from manifest.pytorch.batches import arrived, combined
from manifest.pytorch.states import Drawn
from manifest.pytorch.tensors import Number, Reading, Watchpoints
from manifest.schedule import keeps_leaves
from manifest.streams import UNOBSERVED
from manifest.trail import TrailWriter

_MOST_WAITING = 256

_HERE = frozenset((list, float, type(None)))

Observed = list[bytes] | Reading | None


class Rows:
    """Writes rows in their order, each once all of it has arrived.

    Args:
        always: The steps at which the fingerprint of every tensor is kept, whatever the schedule.
    """

    def __init__(self, always: range = range(0)) -> None:
        self.count = 0
        self.always = always
        self._waiting: deque[Row] = deque()
        self._known: dict[str, tuple[str, ...]] = {}

    def add(self, row: Row, trail: TrailWriter | None, *, is_last: bool = False) -> None:
        """Take the row of the next step, and write what has arrived."""
        self.count += 1
        if trail is not None and not self._waiting and row.is_ready():
            row.write(trail, self._known, is_dense=trail.steps in self.always)
            return
        self._waiting.append(row)
        self.write(trail, is_last=is_last)

    def write(self, trail: TrailWriter | None, *, is_last: bool = False) -> None:
        """Write what has arrived; wait for all of it if there is nothing to come."""
        at_most = 0 if is_last else _MOST_WAITING
        waiting = self._waiting
        while waiting and (len(waiting) > at_most or waiting[0].is_ready()):
            row = waiting.popleft()
            if trail is not None:
                row.write(trail, self._known, is_dense=trail.steps in self.always)


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

    def is_ready(self) -> bool:
        """Whether nothing of it is still on its way."""
        parts = (self.batch, self.loss, self.grads, self.params, self.number)
        if _HERE.issuperset(map(type, parts)):  # the way of a training on the processor: short
            return True
        return all(part.is_ready() for part in parts if isinstance(part, (Reading, Number)))

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
