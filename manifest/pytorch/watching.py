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
from manifest.numbers import Sample
from manifest.pytorch import hooks
from manifest.pytorch.batches import Gathering, Losses, arrived, combined
from manifest.pytorch.names import ModuleNames, parameter_names, unique
from manifest.pytorch.optimizers import described
from manifest.pytorch.rows import Observed, Row, Rows, Watched
from manifest.pytorch.samples import sample
from manifest.pytorch.states import Drawn, Generators, Named
from manifest.pytorch.tensors import fingerprint_many
from manifest.schedule import digest_period, is_digested
from manifest.trail import Ending, TrailWriter

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
        own_generators: Gives generators of the program's own, by name, whose states belong to each
            step; asked at the first step, and after each `look_for_generators`.
        always: Steps at which everything is digested and kept, whatever the schedule.
    """

    def __init__(
        self,
        trail_path: Callable[[], Path | None],
        *,
        on_note: Callable[[str, object], None],
        on_optimizer: Callable[[str, dict[str, Json]], None] | None = None,
        on_first_step: Callable[[], None] | None = None,
        own_generators: Callable[[], Named] | None = None,
        always: range = range(0),
    ) -> None:
        self._trail_path = trail_path
        self._on_note = on_note
        self._on_optimizer = on_optimizer
        self._on_first_step = on_first_step
        self._until: int | None = None
        self._on_until: Callable[[], None] | None = None
        self._generators = Generators(own_generators)
        self._always = always
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
                self._local.loss.forget_number()
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
                trail.close(self._ending(), self._samples())
                self._note_failure()
        except Exception as error:
            self._on_note("trail", error)
        finally:
            self._is_over = True
            self._generators.let_go()

    def look_for_generators(self) -> None:
        """Ask for the program's own generators once more, at the next step."""
        self._generators.look_again()

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
        self._rows.abandon()
        self._is_child = True
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._local = _PerThread()
        self._trail: TrailWriter | None = None
        self._optimizers: dict[int, Watched] = {}
        self._optimizer_count = 0
        self._rows = Rows(self._always)
        self._has_new_rows = False
        self._has_failed = False
        self._is_over = False
        self._generators.look_again()

    def _digested(
        self, stream: str, watched: Watched, tensors: Sequence[Tensor | None]
    ) -> Observed:
        if watched.period > 1 and not self._is_due(watched.period):
            return None
        if stream in self._blind:
            return None
        try:
            points = watched.grads if stream == "grad" else watched.params
            return points.start_reading(tensors)
        except Exception as error:
            self._go_blind(stream, error)
            return None

    def _is_due(self, period: int) -> bool:
        step = self._rows.count
        return is_digested(step, period) or step in self._always

    def _add_row(self, watched: Watched, parameters: list[Tensor], grads: Observed) -> bool:
        with self._lock:
            rows = self._rows
            if rows.count == 0:
                self._begin_trail()
            params = self._digested("param", watched, parameters)
            local, trail = self._local, self._trail
            batch, loss = local.batch.take(), local.loss.take()
            number = local.loss.take_number()
            is_last = rows.count + 1 == self._until
            row = Row(watched, self._drawn(), batch, loss, grads, params, number)
            rows.add(row, trail, is_last=is_last)
            if trail is not None and trail.failure is not None:
                self._note_failure()
            return is_last

    def _begin_trail(self) -> None:
        self._opened()
        if self._on_first_step is not None:
            self._on_first_step()

    def _drawn(self) -> Drawn:
        if "rng" in self._blind:
            return Drawn((), [])
        try:
            return self._generators.read()
        except Exception as error:
            self._go_blind("rng", error)
            return Drawn((), [])

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
        watched = self._optimizers.get(id(optimizer))
        if watched is None or not watched.is_of(optimizer, parameters):
            watched = self._watch(optimizer, parameters, watched)
        return _Seen(optimizer, parameters, watched)

    def _watch(
        self, optimizer: Optimizer, parameters: Sequence[Tensor], watched: Watched | None
    ) -> Watched:
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
        gathered = {"batch": self._local.batch.take(), "loss": self._local.loss.take()}
        left = {stream: arrived(observed) for stream, observed in gathered.items()}
        living = {} if "param" in self._blind else self._living_parameters()
        digests = dict(zip(living, fingerprint_many(living.values()), strict=True))
        return Ending(
            rng=_texts(self._drawn().by_name()),
            tensors=_texts(digests),
            left=_texts({stream: combined(found) for stream, found in left.items() if found}),
        )

    def _samples(self) -> dict[str, Sample]:
        try:
            found = {name: sample(each) for name, each in self._living_parameters().items()}
        except Exception as error:
            self._on_note("trail.samples", error)
            return {}
        return {name: each for name, each in found.items() if each is not None}

    def _living_parameters(self) -> dict[str, Tensor]:
        names: list[str] = []
        parameters: list[Tensor] = []
        for watched in self._optimizers.values():
            optimizer = watched.optimizer() if watched.optimizer is not None else None
            if optimizer is not None:
                names += watched.names
                parameters += _parameters(optimizer)
        return dict(zip(unique(names), parameters, strict=True))

    def _go_blind(self, stream: str, error: Exception) -> None:
        self._blind.add(stream)
        self._local.forget(stream)
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
        self.loss = Losses()
        self.seen: _Seen | None = None

    def forget(self, stream: str) -> None:
        """Drop what was gathered of a stream in which something could not be read."""
        if stream == "batch":
            self.batch = Gathering()
        if stream == "loss":
            self.loss = Losses()


def _texts(digests: Mapping[str, bytes]) -> dict[str, str]:
    return {name: digest.hex() for name, digest in digests.items()}


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    groups = optimizer.param_groups
    if len(groups) == 1:
        return list(groups[0]["params"])
    return [parameter for group in groups for parameter in group["params"]]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
