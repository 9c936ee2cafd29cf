"""PyTorch's global hooks and two wrapped functions, put in once, serving whoever listens.

They stay in place when nobody listens any more: another tool may have wrapped the same functions
since. Inside code that is being compiled or captured as a graph they do nothing, as nothing runs
there yet.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch.compiler import is_compiling
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.data import dataloader


class Listener(Protocol):
    """Who is told what happens; nothing that it does may raise."""

    def before_step(self, optimizer: Optimizer, *, has_closure: bool) -> None:
        """An optimizer is about to step; with a closure, gradients are made only then."""

    def after_step(self, optimizer: Optimizer, *, has_closure: bool) -> None:
        """An optimizer has stepped."""

    def gather(self, stream: str, value: object) -> None:
        """A loader has delivered a `batch`, or a backward pass begins from a `loss`."""

    def begin_in_fork(self) -> None:
        """This process was just forked."""


_listener: Listener | None = None
_is_installed = False


def listen(listener: Listener) -> None:
    """Serve this listener from now on, and no other."""
    global _listener
    _install()
    _listener = listener


def listener() -> Listener | None:
    """Who is served."""
    return _listener


def stop_listening(listener: Listener) -> None:
    """Serve this listener no more."""
    global _listener
    if _listener is listener:
        _listener = None


class _PerThread(threading.local):
    is_in_backward = False


_thread = _PerThread()


def _install() -> None:
    global _is_installed
    if _is_installed:
        return
    _is_installed = True
    register_optimizer_step_pre_hook(_before_step)
    register_optimizer_step_post_hook(_after_step)
    os.register_at_fork(after_in_child=_forked)
    torch.autograd.backward = _watched_backward(torch.autograd.backward)
    iterator = dataloader._BaseDataLoaderIter
    iterator.__next__ = _watched_next(iterator.__next__)  # type: ignore[assignment,method-assign]


def _before_step(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if is_compiling():
        return
    listening = _listener
    if listening is not None and not _is_capturing():
        listening.before_step(optimizer, has_closure=_has_closure(args, kwargs))


def _after_step(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if is_compiling():
        return
    listening = _listener
    if listening is not None and not _is_capturing():
        listening.after_step(optimizer, has_closure=_has_closure(args, kwargs))


def _has_closure(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return (len(args) > 1 and args[1] is not None) or kwargs.get("closure") is not None


def _is_capturing() -> bool:
    cuda = torch.cuda
    # Asking would initialise it.
    if not cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    return bool(cuda.is_current_stream_capturing())


def _watched_backward(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def backward(*args: Any, **kwargs: Any) -> Any:
        if is_compiling():
            return original(*args, **kwargs)
        listening = _listener
        # Checkpointing runs backward passes inside the one that the program asked for.
        if listening is None or _thread.is_in_backward or _is_capturing():
            return original(*args, **kwargs)
        listening.gather("loss", args[0] if args else kwargs.get("tensors"))
        _thread.is_in_backward = True
        try:
            return original(*args, **kwargs)
        finally:
            _thread.is_in_backward = False

    return backward


def _watched_next(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(original)
    def __next__(self: Any) -> Any:  # noqa: N807 -- the name it replaces
        batch = original(self)
        listening = _listener
        if listening is not None and not is_compiling():
            listening.gather("batch", batch)
        return batch

    return __next__


def _forked() -> None:
    if _listener is not None:
        _listener.begin_in_fork()
