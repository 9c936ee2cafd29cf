"""The sums of tensors on accelerators, by the quickest way that has proved to give them.

A kernel is on trial first: what it makes of some tensors is compared with what PyTorch's own
operations make of them, whenever the device is done with both. Until then, and where it fails, the
operations are used.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from manifest.pytorch.kernels import SumsKernel
from manifest.pytorch.lanes import ROW_LANES, sums_by_operations
from manifest.pytorch.transfers import Transfer, Words, copied, words_of

_Make = Callable[[torch.device], SumsKernel]


def device_sum(tensor: Tensor) -> Words:
    """Sum the bits of a dense tensor in two independent ways, where it lies, without waiting.

    Returns:
        Two words.
    """
    return device_sums([tensor])


def device_sums(tensors: Sequence[Tensor]) -> Words:
    """Sum the bits of each dense tensor of one device, without waiting.

    Returns:
        Two words for each.
    """
    device = tensors[0].device
    kernel = kernel_of(device)
    if kernel is not None:
        with torch.no_grad(), torch.cuda.device(device):
            found = kernel.sums(tensors)
        if found is not None:
            return found
    return words_of(sums_by_operations(tensors))


def kernel_of(device: torch.device) -> SumsKernel | None:
    """What sums the tensors of a device in one launch; None if nothing does, or none may do yet."""
    if device.type != "cuda" or torch.version.hip is not None:
        return None
    trial = _trials.get(device)
    if trial is None:
        with torch.no_grad(), torch.cuda.device(device):
            trial = _trials[device] = Trial(device)
    return trial.kernel()


class Trial:
    """A kernel that is used once it has shown what it can do.

    Args:
        device: Where.
        make: Makes the kernel; whatever it raises, there is none.
        transfer: Starts a copy to the host; gives the copy, and an event that is done when it is.
    """

    def __init__(
        self,
        device: torch.device,
        make: _Make = SumsKernel,
        transfer: Transfer = copied,
    ) -> None:
        self._kernel: SumsKernel | None = None
        self._pending: tuple[SumsKernel, Tensor, Any] | None = None
        try:
            self._begin(make(device), device, transfer)
        except Exception:  # no driver, another one, no memory: there is the other way
            self._pending = None

    def kernel(self) -> SumsKernel | None:
        """The kernel; None while it is on trial, and where it has failed."""
        if self._pending is not None:
            self._look()
        return self._kernel

    def _begin(
        self,
        kernel: SumsKernel,
        device: torch.device,
        transfer: Transfer,
    ) -> None:
        tensors = _examples(device)
        found = kernel.sums(tensors)
        if found is None:
            return
        both = torch.stack([found.tensor(), sums_by_operations(tensors).view(-1)])
        copy, event = transfer(both)
        keep_for_ever(event)
        self._pending = kernel, copy, event

    def _look(self) -> None:
        if self._pending is None:
            return
        kernel, copy, event = self._pending
        if event.query():
            self._pending = None
            self._kernel = kernel if torch.equal(copy[0], copy[1]) else None


def keep_for_ever(thing: object) -> None:
    """Never let an object end: in a fork, to end an event of CUDA would end the process."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


_trials: dict[torch.device, Trial] = {}


def _examples(device: torch.device) -> list[Tensor]:
    """Tensors of several rows, of odd sizes and offsets, with every bit in use."""
    numbers = torch.arange(20 * ROW_LANES + 1, dtype=torch.int32, device=device) * -0x61C88647
    octets = numbers.view(torch.uint8)
    parts = [octets[4:4099], octets[8:9], octets[:0], octets[1:7]]
    return [numbers, *parts, numbers.view(torch.int16)[2:5]]
