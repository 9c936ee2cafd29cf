"""PyTorch's global hooks and two wrapped functions, put in once, serving whoever listens.

They stay in place when nobody listens any more: another tool may have wrapped the same functions
since. The compiler is told to leave them out and call them as they are, which it does between two
graphs, as it does with optimizers and backward passes anyway. While a graph is being captured they
do nothing, as nothing runs there yet.
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
_cuda: Any = torch.cuda


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
    for function in (_before_step, _after_step, _gather):
        keep_from_compiler(function, with_callees=True)
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
    if listening is not None and not (_cuda._initialized and _is_capturing()):
        has_closure = (len(args) > 1 or bool(kwargs)) and _has_closure(args, kwargs)
        listening.before_step(optimizer, has_closure=has_closure)


def _after_step(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if is_compiling():
        return
    listening = _listener
    if listening is not None and not (_cuda._initialized and _is_capturing()):
        has_closure = (len(args) > 1 or bool(kwargs)) and _has_closure(args, kwargs)
        listening.after_step(optimizer, has_closure=has_closure)


def _has_closure(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return (len(args) > 1 and args[1] is not None) or kwargs.get("closure") is not None


def _is_capturing() -> bool:
    # Asked only where CUDA is initialised already, as asking would do that; and of the attribute,
    # not the function, as each call in here is one more at every step of every training.
    return _cuda.is_initialized() and bool(_cuda.is_current_stream_capturing())


def _watched_backward(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def backward(*args: Any, **kwargs: Any) -> Any:
        if is_compiling():
            return original(*args, **kwargs)
        # Checkpointing runs backward passes inside the one that the program asked for.
        if _thread.is_in_backward:
            return original(*args, **kwargs)
        _gather("loss", args[0] if args else kwargs.get("tensors"))
        _thread.is_in_backward = True
        try:
            return original(*args, **kwargs)
        finally:
            _thread.is_in_backward = False

    keep_from_compiler(backward, with_callees=False)
    return backward


def _watched_next(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(original)
    def __next__(self: Any) -> Any:  # noqa: N807 -- the name it replaces
        batch = original(self)
        _gather("batch", batch)
        return batch

    keep_from_compiler(__next__, with_callees=False)
    return __next__


def _gather(stream: str, value: object) -> None:
    if is_compiling():
        return
    listening = _listener
    if listening is not None and not (_cuda._initialized and _is_capturing()):
        listening.gather(stream, value)


def keep_from_compiler(function: Any, *, with_callees: bool) -> None:
    """Have the compiler leave a function out, with or without what it calls."""
    function._torchdynamo_disable = True
    try:
        from torch._C._dynamo import eval_frame  # that is in C++; the compiler is not imported

        action = eval_frame._FrameAction
        callees = action.SKIP if with_callees else action.DEFAULT
        strategy = eval_frame._FrameExecStrategy(action.SKIP, callees)
        eval_frame.set_code_exec_strategy(function.__code__, strategy)
    except (ImportError, AttributeError, TypeError):
        return  # another PyTorch: compiled code then is not observed, as `is_compiling` says


def _forked() -> None:
    if _listener is not None:
        _listener.begin_in_fork()
