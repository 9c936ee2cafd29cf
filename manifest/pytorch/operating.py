"""Watches every operation, in steps that a replay records densely.

A dispatch mode calls each operation as it would have been called, and digests what it gave and
what it wrote. What merely shows a tensor in another form is not digested, nor memory that nobody
has written yet. Compiled code runs as it does without, and is not looked into.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.optim.optimizer import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from xxhash import xxh3_64_hexdigest

from manifest.operations import Operation, OperationWriter
from manifest.places import first_outside, first_within, shown_place
from manifest.pytorch.hooks import keep_from_compiler
from manifest.pytorch.rows import Observed, Watched
from manifest.pytorch.tensors import fingerprint_many, is_fake
from manifest.pytorch.watching import Watcher
from manifest.trail import beside

_UNWRITTEN = ("empty", "new_empty", "resize_", "_efficientzerotensor")


class DenseWatcher(Watcher):
    """A watcher that keeps every fingerprint, and every operation, within a window of steps.

    Args:
        root: The folder of the project, to which places are relative.
        window: The steps.
        trail_path: As of a `Watcher`, like all that follows.
        on_note: Told of what could not be done.
        options: The others.
    """

    def __init__(
        self,
        root: str,
        window: range,
        trail_path: Callable[[], Path | None],
        *,
        on_note: Callable[[str, object], None],
        **options: Any,
    ) -> None:
        super().__init__(trail_path, on_note=on_note, always=window, **options)
        self._window = window
        self._mode = _Mode(root)
        self._note = on_note

    def install(
        self, *, until: int | None = None, on_until: Callable[[], None] | None = None
    ) -> None:
        """Watch from now on; see `Watcher.install`."""
        super().install(until=until, on_until=on_until)
        self._move_to(0)

    def before_step(self, optimizer: Optimizer, *, has_closure: bool) -> None:
        """See `Watcher`; what is done here is no operation of the program."""
        with self._mode.paused():
            super().before_step(optimizer, has_closure=has_closure)

    def after_step(self, optimizer: Optimizer, *, has_closure: bool) -> None:
        """See `Watcher`; what is done here is no operation of the program."""
        with self._mode.paused():
            super().after_step(optimizer, has_closure=has_closure)

    def gather(self, stream: str, value: object) -> None:
        """See `Watcher`; what is done here is no operation of the program."""
        with self._mode.paused():
            super().gather(stream, value)

    def begin_in_fork(self) -> None:
        """Let go of what belongs to the parent."""
        self._mode.end()
        self._window = range(0)
        super().begin_in_fork()

    def finish(self) -> None:
        """Write what is left at the end, and watch no more."""
        path = self._operations_path()
        super().finish()
        if path is not None:
            self._mode.writer.close(path, is_compiled=_has_compiled())
        if self._mode.writer.failure is not None:
            self._note("trail.operations", self._mode.writer.failure)
        self._mode.end()

    def _add_row(self, watched: Watched, parameters: list[Tensor], grads: Observed) -> bool:
        is_last = super()._add_row(watched, parameters, grads)
        path = self._operations_path()
        if path is not None and self.steps - 1 in self._window:
            self._mode.writer.end_step(self.steps - 1, path)
        self._move_to(self.steps)
        return is_last

    def _operations_path(self) -> str | None:
        return None if self._trail is None else beside(self._trail.path, ".ops")

    def _move_to(self, step: int) -> None:
        try:
            self._mode.move_to(step if step in self._window else None)
        except Exception as error:
            self._note("trail.operations", error)


class _Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch types it not
    """Takes note of each operation of a step."""

    supports_higher_order_operators = True

    def __init__(self, root: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch types it not
        self.writer = OperationWriter()
        self._root = root
        self._step: int | None = None
        self._is_paused = False
        self._is_entered = False

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # It should, as is seen to below. What PyTorch does for it imports the compiler, which seeds
        # generators: at the first operation, so that the program's own would get other seeds.
        return False

    def move_to(self, step: int | None) -> None:
        """Take note of the operations of this step from now on, or of none."""
        self._step = step
        if step is None or self._is_entered:
            return
        # It stays where it is, at the bottom: modes of the program come and go above it.
        if torch._C._len_torch_dispatch_stack():
            raise RuntimeError("operations are not observed: the program watches them itself")
        self.__enter__()  # type: ignore[no-untyped-call]  # torch types it not
        self._is_entered = True

    def end(self) -> None:
        """Take note of nothing any more."""
        self._step = None
        self.writer.forget()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take note of nothing meanwhile."""
        was_paused, self._is_paused = self._is_paused, True
        try:
            yield
        finally:
            self._is_paused = was_paused

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self._step is not None and not self._is_paused and not is_compiling():
            try:
                self._note(self._step, func, args, kwargs, result)
            except Exception as error:
                self.writer.failure = self.writer.failure or error
        return result

    def _note(self, step: int, func: Any, args: tuple[Any, ...], kwargs: Any, result: Any) -> None:
        tensors = list(_tensors(_given(func, result)))
        tensors += _tensors(_written(func, args, kwargs))
        if any(is_fake(tensor) for tensor in tensors):
            return
        digest = xxh3_64_hexdigest(b"".join(fingerprint_many(tensors))) if tensors else ""
        node: Any = torch._C._current_autograd_node()
        place = self._place(sys._getframe(2))
        name = node.name() if node is not None else ""
        self.writer.add(step, Operation(str(func), digest, place, name))

    def _place(self, frame: FrameType | None) -> str:
        found = first_within(frame, self._root) or first_outside(frame, ("manifest", "torch"))
        if found is None:
            return ""
        return shown_place(found.f_code.co_filename, found.f_lineno, self._root)


keep_from_compiler(_Mode.__torch_dispatch__, with_callees=True)


def _given(func: Any, result: Any) -> list[Any]:
    values = list(result) if isinstance(result, (tuple, list)) else [result]
    are_new = _are_new(func)
    if len(are_new) != len(values):  # one list of tensors, or an operator with no schema
        return values if all(are_new) else []
    return [value for value, is_new in zip(values, are_new, strict=True) if is_new]


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    return [
        args[place] if place < len(args) else kwargs.get(name)
        for place, name in _written_places(func)
    ]


@cache
def _are_new(func: Any) -> tuple[bool, ...]:
    """Whether each thing that an operator returns has been computed by it."""
    schema = getattr(func, "_schema", None)
    if schema is None:
        return ()
    if schema.name.partition("::")[2].startswith(_UNWRITTEN):
        return (False,) * len(schema.returns)
    # What is an alias shows another tensor, or is one that was written.
    return tuple(each.alias_info is None for each in schema.returns)


@cache
def _written_places(func: Any) -> tuple[tuple[int, str], ...]:
    schema = getattr(func, "_schema", None)
    arguments = schema.arguments if schema is not None else ()
    return tuple(
        (place, each.name)
        for place, each in enumerate(arguments)
        if each.alias_info is not None and each.alias_info.is_write
    )


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _has_compiled() -> bool:
    utils = sys.modules.get("torch._dynamo.utils")
    return utils is not None and bool(utils.counters["frames"].get("ok"))
