"""Rows on their way to the trail: complete at once, or when an accelerator is done with them."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.optim.optimizer import Optimizer

from manifest.pytorch.batches import combined
from manifest.pytorch.tensors import Reading
from manifest.trail import TrailWriter, keeps_leaves

_MOST_WAITING = 256

Observed = list[bytes] | Reading | None


class Rows:
    """Writes rows in their order, each once all of it has arrived."""

    def __init__(self) -> None:
        self.count = 0
        self._waiting: deque[Row] = deque()

    def add(self, row: Row) -> None:
        """Take the row of the next step."""
        self.count += 1
        self._waiting.append(row)

    def write(self, trail: TrailWriter | None, *, is_last: bool = False) -> None:
        """Write what has arrived; wait for all of it if there is nothing to come."""
        at_most = 0 if is_last else _MOST_WAITING
        waiting = self._waiting
        while waiting and (len(waiting) > at_most or waiting[0].is_ready()):
            row = waiting.popleft()
            if trail is not None:
                row.write(trail)


@dataclass(slots=True)
class Watched:
    """What is known of an optimizer, which it does not keep alive."""

    optimizer: weakref.ref[Optimizer] | None
    names: tuple[str, ...]
    period: int

    def is_of(self, optimizer: Optimizer, parameters: Sequence[Tensor]) -> bool:
        """Whether this still describes the optimizer."""
        if self.optimizer is None or self.optimizer() is not optimizer:
            return False
        return len(self.names) == len(parameters)


@dataclass(slots=True)
class Row:
    """What was observed in one step."""

    watched: Watched
    rng: dict[str, bytes]
    batch: Observed
    loss: Observed
    grads: Observed
    params: Observed

    def is_ready(self) -> bool:
        """Whether nothing of it is still on its way."""
        for observed in (self.batch, self.loss, self.grads, self.params):
            if isinstance(observed, Reading) and not observed.is_ready():
                return False
        return True

    def write(self, trail: TrailWriter) -> None:
        """Append it to the trail, names of tensors first."""
        rng = list(self.rng.values())
        grads, params = arrived(self.grads), arrived(self.params)
        if keeps_leaves(trail.steps, self.watched.period):
            names = self.watched.names
            parts = (
                ("rng", tuple(self.rng), rng),
                ("grad", names, grads),
                ("param", names, params),
            )
            for stream, known, digests in parts:
                if digests:
                    trail.append_leaves(trail.steps, stream, known, digests)
        batch, loss = combined(arrived(self.batch)), combined(arrived(self.loss))
        trail.append(combined(rng), batch, loss, combined(grads), combined(params))


def arrived(observed: Observed) -> list[bytes]:
    """The digests, waited for where need be."""
    if observed is None:
        return []
    return observed.wait() if isinstance(observed, Reading) else observed
