"""What is on its way from accelerators to the host: sent together, once a step, not waited for."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from xxhash import xxh3_128_digest

from manifest.streams import UNOBSERVED

_PAIR_BYTES = 16

Transfer = Callable[[Tensor], tuple[Tensor, Any]]
"""Starts a copy to the host; gives the copy, and an event that is done when it is."""


class Words:
    """Some words of one device, and where their copy lies once they were sent."""

    __slots__ = ("_copy", "_event", "_words")

    def __init__(self, words: Tensor) -> None:
        self._words = words.reshape(-1)
        self._copy: Tensor | None = None
        self._event: Any = None

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self._words.device

    def wait(self) -> bytes:
        """Their bytes, once they have come."""
        if self._copy is None:
            send([self], to_host)
        copy = self._copy
        assert copy is not None  # noqa: S101 -- sent above
        self._event.synchronize()
        return ctypes.string_at(copy.data_ptr(), copy.nbytes)


class Reading:
    """Fingerprints on their way from accelerators.

    Args:
        leaves: The fingerprints already known, with None where one is on its way.
        sums: For each device, the places and the seeds of those that come from there, and two words
            for each.
    """

    def __init__(
        self,
        leaves: Sequence[bytes | None],
        sums: Iterable[tuple[Sequence[tuple[int, int]], Tensor]],
    ) -> None:
        self._leaves = list(leaves)
        self._parts = [(places, Words(words)) for places, words in sums]

    def words(self) -> list[Words]:
        """What is to be sent."""
        return [words for _, words in self._parts]

    def wait(self) -> list[bytes]:
        """The fingerprints, in order."""
        for places, words in self._parts:
            came = words.wait()
            for index, (place, seed) in enumerate(places):
                pair = came[index * _PAIR_BYTES : (index + 1) * _PAIR_BYTES]
                self._leaves[place] = xxh3_128_digest(pair, seed)
        self._parts = []
        return [leaf or UNOBSERVED for leaf in self._leaves]


class Number:
    """A number on its way from an accelerator.

    Args:
        tensor: Of one element, float32 or float64.
    """

    def __init__(self, tensor: Tensor) -> None:
        lone = tensor.detach().reshape(1)
        self._form = "<d" if lone.dtype is torch.float64 else "<f4x"
        is_wide = lone.dtype is torch.float64
        self._words = Words(lone.view(torch.int64) if is_wide else lone.view(torch.int32).long())

    def words(self) -> list[Words]:
        """What is to be sent."""
        return [self._words]

    def wait(self) -> float:
        """The number."""
        number: float = struct.unpack(self._form, self._words.wait())[0]
        return number


def send(words: Iterable[Words], transfer: Transfer) -> list[Any]:
    """Start the way of words to the host, in one copy for each device.

    Returns:
        An event for each copy.
    """
    by_device: dict[torch.device, list[Words]] = {}
    for each in words:
        by_device.setdefault(each.device, []).append(each)
    events = []
    for group in by_device.values():
        tensors = [each._words for each in group]
        together = torch.cat(tensors) if len(tensors) > 1 else tensors[0]
        copy, event = transfer(together)
        parts = torch.split(copy, [len(tensor) for tensor in tensors])
        for each, part in zip(group, parts, strict=True):
            each._copy, each._event = part, event
        events.append(event)
    return events


def to_host(tensor: Tensor) -> tuple[Tensor, Any]:
    """Copy a tensor to the host while the program goes on."""
    pinned = tensor.device.type in ("cuda", "xpu")
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=pinned)
    copy.copy_(tensor, non_blocking=True)
    event = torch.Event(tensor.device)
    event.record()
    return copy, event
