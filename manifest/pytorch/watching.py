"""Watches a program train: a row of fingerprints for every step of every optimizer.

Gradients are read before the optimizer changes them, parameters after it, losses where a backward
pass begins, batches where a loader delivers them, and generators last of all. Everything is learnt
through `hooks`; what fails is noted once, and that stream stays empty from there.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim.optimizer import Optimizer

from manifest.canonical import Json
from manifest.pytorch import hooks
from manifest.pytorch.batches import Gathering, combined
from manifest.pytorch.names import ModuleNames, parameter_names, unique
from manifest.pytorch.optimizers import described
from manifest.pytorch.rows import Observed, Row, Rows, Watched, arrived
from manifest.pytorch.states import Generators
from manifest.pytorch.tensors import fingerprint_many, start_reading
from manifest.trail import Ending, TrailWriter, digest_period, is_digested

_MOST_OPTIMIZERS = 16  # are told of

# Models outlive the run in which they were built: a sweep, a notebook.
_names = ModuleNames()


class Watcher:
    """Writes the trail of this process, and of each forked child that trains.

    Args:
        trail_path: Where the trail of this process is to lie, asked at its first step; None for
            no trail.
        on_note: Told once, by place and error, of each stream that could not be read.
        on_optimizer: Told what each optimizer is, by its name, before its first step.
        on_first_step: Called when the first step is over, before its row is written.
    """

    def __init__(
        self,
        trail_path: Callable[[], Path | None],
        *,
        on_note: Callable[[str, object], None],
        on_optimizer: Callable[[str, dict[str, Json]], None] | None = None,
        on_first_step: Callable[[], None] | None = None,
    ) -> None:
        self._trail_path = trail_path
        self._on_note = on_note
        self._on_optimizer = on_optimizer
        self._on_first_step = on_first_step
        self._until: int | None = None
        self._on_until: Callable[[], None] | None = None
        self._generators = Generators()
        self._is_child = False
        self._blind: set[str] = set()
        self._has_new_rows = False
        self._is_over = False
        self._begin()

    def install(
        self, *, until: int | None = None, on_until: Callable[[], None] | None = None
    ) -> None:
        """Watch from now on, in the place of any earlier watcher.

        Args:
            until: After how many steps `on_until` is called, once their rows are written.
            on_until: May end the program.
        """
        earlier = hooks.listener()
        if isinstance(earlier, Watcher) and earlier is not self:
            earlier.finish()
        self._until, self._on_until = until, on_until
        _names.install()
        hooks.listen(self)

    @property
    def steps(self) -> int:
        """How many steps are over."""
        return self._rows.count

    def step(self, loss: object = None, model: Any = None) -> None:
        """End a step by hand, where no optimizer of PyTorch does.

        After a step that an optimizer ended already this does nothing, so that a program may call
        it in either case.

        Args:
            loss: Of this step; a tensor or a number.
            model: A module, whose parameters and gradients are digested.
        """
        if self._has_new_rows or self._is_over:
            self._has_new_rows = False
            return
        try:
            if loss is not None:
                self.gather("loss", loss)
            named = dict(model.named_parameters()) if model is not None else {}
            parameters = list(named.values())
            watched = Watched(None, tuple(named), digest_period(_bytes(parameters)))
            grads = self._digested("grad", watched, [p.grad for p in parameters])
            is_last = self._add_row(watched, parameters, grads)
        except Exception as error:
            self._give_up(error)
            return
        if is_last and self._on_until is not None:
            self._on_until()

    def finish(self) -> None:
        """Write what is left at the end, and watch no more."""
        hooks.stop_listening(self)
        if self._is_over:
            return
        try:
            self._rows.write(self._trail, is_last=True)
            if self._is_child and self._trail is None:
                return
            trail = self._opened()
            if trail is not None:
                trail.close(self._ending())
                self._note_failure()
        except Exception as error:
            self._on_note("trail", error)
        finally:
            self._is_over = True

    def before_step(self, optimizer: Optimizer, *, has_closure: bool) -> None:
        """Read gradients before an optimizer changes them; a closure only makes them later."""
        try:
            seen = self._look(optimizer)
            if not has_closure:
                seen.grads = self._digested("grad", seen.watched, [p.grad for p in seen.parameters])
            self._local.seen = seen
        except Exception as error:
            self._go_blind("grad", error)

    def after_step(self, optimizer: Optimizer, *, has_closure: bool) -> None:
        """Read parameters and generators, and write the row of the step."""
        if self._is_over:
            return
        try:
            seen, self._local.seen = self._local.seen, None
            if seen is None or seen.optimizer is not optimizer:
                seen = self._look(optimizer)
            if has_closure:
                seen.grads = self._digested("grad", seen.watched, [p.grad for p in seen.parameters])
            is_last = self._add_row(seen.watched, seen.parameters, seen.grads)
            self._has_new_rows = True
        except Exception as error:
            self._give_up(error)
            return
        if is_last and self._on_until is not None:
            self._on_until()

    def gather(self, stream: str, value: object) -> None:
        """Add a batch or a loss to the step that is under way in this thread."""
        if stream in self._blind:
            return
        try:
            getattr(self._local, stream).add(value)
        except Exception as error:
            self._go_blind(stream, error)

    def begin_in_fork(self) -> None:
        """Let go of what belongs to the parent."""
        if self._trail is not None:
            self._trail.forget()
        self._is_child = True
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._local = _PerThread()
        self._trail: TrailWriter | None = None
        self._optimizers: dict[int, Watched] = {}
        self._optimizer_count = 0
        self._rows = Rows()
        self._has_new_rows = False
        self._has_failed = False
        self._is_over = False

    def _digested(
        self, stream: str, watched: Watched, tensors: Sequence[Tensor | None]
    ) -> Observed:
        if stream in self._blind or not is_digested(self._rows.count, watched.period):
            return None
        try:
            return start_reading(tensors)
        except Exception as error:
            self._go_blind(stream, error)
            return None

    def _add_row(self, watched: Watched, parameters: Sequence[Tensor], grads: Observed) -> bool:
        with self._lock:
            rows = self._rows
            if rows.count == 0:
                self._opened()
                if self._on_first_step is not None:
                    self._on_first_step()
            params = self._digested("param", watched, parameters)
            batch, loss = self._gathered("batch"), self._gathered("loss")
            rows.add(Row(watched, self._rng(), batch, loss, grads, params))
            is_last = rows.count == self._until
            rows.write(self._trail, is_last=is_last)
            self._note_failure()
            return is_last

    def _gathered(self, stream: str) -> Observed:
        if stream in self._blind:
            return None
        gathering: Gathering = getattr(self._local, stream)
        return gathering.take()

    def _rng(self) -> dict[str, bytes]:
        if "rng" in self._blind:
            return {}
        try:
            return self._generators.digests()
        except Exception as error:
            self._go_blind("rng", error)
            return {}

    def _note_failure(self) -> None:
        # At once: a program may end without a word.
        trail = self._trail
        if trail is not None and trail.failure is not None and not self._has_failed:
            self._has_failed = True
            self._on_note("trail", trail.failure)

    def _opened(self) -> TrailWriter | None:
        if self._trail is None and (path := self._trail_path()) is not None:
            self._trail = TrailWriter(path)
        return self._trail

    def _look(self, optimizer: Optimizer) -> _Seen:
        parameters = _parameters(optimizer)
        return _Seen(optimizer, parameters, self._watched(optimizer, parameters))

    def _watched(self, optimizer: Optimizer, parameters: Sequence[Tensor]) -> Watched:
        watched = self._optimizers.get(id(optimizer))
        if watched is not None and watched.is_of(optimizer, parameters):
            return watched
        if watched is None or watched.optimizer is None or watched.optimizer() is not optimizer:
            self._tell_of(optimizer)
        names = parameter_names(optimizer.param_groups, _names.by_parameter())
        period = digest_period(_bytes(parameters))
        watched = Watched(weakref.ref(optimizer), tuple(names), period)
        self._optimizers[id(optimizer)] = watched
        return watched

    def _tell_of(self, optimizer: Optimizer) -> None:
        if self._on_optimizer is None or self._optimizer_count >= _MOST_OPTIMIZERS:
            return
        name = f"optimizer.{self._optimizer_count}"
        self._optimizer_count += 1
        try:
            self._on_optimizer(name, described(optimizer))
        except Exception as error:
            self._on_note("training", error)

    def _ending(self) -> Ending:
        left = {stream: arrived(self._gathered(stream)) for stream in ("batch", "loss")}
        return Ending(
            rng=_texts(self._rng()),
            tensors={} if "param" in self._blind else _texts(self._living_parameters()),
            left=_texts({stream: combined(found) for stream, found in left.items() if found}),
        )

    def _living_parameters(self) -> dict[str, bytes]:
        names: list[str] = []
        parameters: list[Tensor] = []
        for watched in self._optimizers.values():
            optimizer = watched.optimizer() if watched.optimizer is not None else None
            if optimizer is not None:
                names += watched.names
                parameters += _parameters(optimizer)
        return dict(zip(unique(names), fingerprint_many(parameters), strict=True))

    def _go_blind(self, stream: str, error: Exception) -> None:
        self._blind.add(stream)
        self._on_note(f"trail.{stream}", error)

    def _give_up(self, error: Exception) -> None:
        self._is_over = True
        self._on_note("trail", error)


@dataclass(slots=True)
class _Seen:
    """What was found before a step, for after it."""

    optimizer: Optimizer
    parameters: list[Tensor]
    watched: Watched
    grads: Observed = None


class _PerThread(threading.local):
    """What a thread has seen since its last step; threads that train side by side stay apart."""

    def __init__(self) -> None:
        self.batch = Gathering()
        self.loss = Gathering()
        self.seen: _Seen | None = None


def _texts(digests: Mapping[str, bytes]) -> dict[str, str]:
    return {name: digest.hex() for name, digest in digests.items()}


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
