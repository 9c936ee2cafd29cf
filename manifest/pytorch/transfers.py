"""What is on its way from accelerators to the host: sent together, and not waited for."""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from xxhash import xxh3_128_digest

from manifest.streams import UNOBSERVED

_PAIR_BYTES: Final = 16
_SLATE_WORDS: Final = 2**15
_DEFAULT_STREAM: Final = 0

Transfer = Callable[[Tensor], tuple[Tensor, Any]]
"""Starts a copy to the host; gives the copy, and an event that is done when it is."""


class Words:
    """Some words of one device, and where their copy lies once they were sent.

    Args:
        base: Words in which they lie, in one dimension.
        start: The first of them.
        count: How many; by default, all from there.
    """

    __slots__ = ("_address", "_copy", "_event", "base", "count", "start")

    def __init__(self, base: Tensor, start: int = 0, count: int | None = None) -> None:
        self.base = base
        self.start = start
        self.count = base.numel() - start if count is None else count
        self._copy: Tensor | None = None
        self._event: Any = None
        self._address = 0

    def tensor(self) -> Tensor:
        """They themselves."""
        return self.base[self.start : self.start + self.count]

    def is_sent(self) -> bool:
        """Whether they are on their way, or there."""
        return self._copy is not None

    def is_ready(self) -> bool:
        """Whether `wait` would return at once."""
        return self._copy is not None and bool(self._event.query())

    def send(self, transfer: Transfer) -> None:
        """Start their way, alone."""
        copy, event = transfer(self.tensor())
        self.arrive(copy, 0, event)

    def arrive(self, copy: Tensor, start: int, event: Any) -> None:
        """Note that they will be there, in a copy from `start` on, when the event is done."""
        self._copy, self._event = copy, event
        self._address = copy.data_ptr() + 8 * start

    def wait(self) -> bytes:
        """Their bytes, once they have come."""
        if self._copy is None:
            self.send(to_host)
        self._event.synchronize()
        return ctypes.string_at(self._address, 8 * self.count)


class Slates:
    """Words of one device, zero at first, handed out piece by piece.

    To fill some with zeros for each reading would be one launch more. What is handed out was filled
    on the stream that it is for.
    """

    def __init__(self, device: torch.device, size: int = _SLATE_WORDS) -> None:
        self._device = device
        self._size = size
        self._lock = threading.Lock()
        self._present: dict[int, tuple[Tensor, int, int]] = {}  # by stream: words, address, used

    def take(self, count: int, stream: int) -> tuple[Words, int]:
        """Words for the kernel to add to, and their address.

        Args:
            count: How many.
            stream: The present one.
        """
        with self._lock:
            words, address, used = self._present.get(stream, (None, 0, self._size))
            if words is None or used + count > len(words):
                size = max(self._size, count)
                words = torch.zeros(size, dtype=torch.int64, device=self._device)
                address, used = words.data_ptr(), 0
            self._present[stream] = words, address, used + count
        return Words(words, used, count), address + 8 * used


class Reading:
    """Fingerprints on their way from accelerators.

    Args:
        leaves: The fingerprints already known, with None where one is on its way.
        sums: For each device, the places and the seeds of those that come from there, and two words
            for each.
    """

    __slots__ = ("_leaves", "_parts")

    def __init__(
        self,
        leaves: Sequence[bytes | None],
        sums: Sequence[tuple[Sequence[tuple[int, int]], Words]],
    ) -> None:
        self._leaves = leaves
        self._parts = sums

    def words(self) -> list[Words]:
        """What is to be sent."""
        return [words for _, words in self._parts]

    def wait(self) -> list[bytes]:
        """The fingerprints, in order."""
        leaves = [leaf or UNOBSERVED for leaf in self._leaves]
        for places, words in self._parts:
            came = words.wait()
            for start, (place, seed) in zip(range(0, len(came), _PAIR_BYTES), places, strict=True):
                leaves[place] = xxh3_128_digest(came[start : start + _PAIR_BYTES], seed)
        self._leaves, self._parts = leaves, []
        return leaves


class Number:
    """A number on its way from an accelerator.

    Args:
        tensor: Of one element, float32 or float64.
    """

    __slots__ = ("_form", "_words")

    def __init__(self, tensor: Tensor) -> None:
        lone = tensor.detach().reshape(1)
        is_wide = lone.dtype is torch.float64
        self._form = "<d" if is_wide else "<f4x"
        self._words = words_of(lone.view(torch.int64) if is_wide else lone.view(torch.int32).long())

    def words(self) -> list[Words]:
        """What is to be sent."""
        return [self._words]

    def wait(self) -> float:
        """The number."""
        number: float = struct.unpack(self._form, self._words.wait())[0]
        return number


def send(words: Iterable[Words], transfer: Transfer) -> list[Any]:
    """Start the way to the host of words that are not sent, in one copy for each device.

    Returns:
        An event for each copy.
    """
    by_device: dict[torch.device, list[Words]] = {}
    for each in words:
        if not each.is_sent():
            by_device.setdefault(each.base.device, []).append(each)
    return [_sent(group, transfer) for group in by_device.values()]


def _sent(group: Sequence[Words], transfer: Transfer) -> Any:
    spans: dict[int, tuple[Tensor, int, int]] = {}
    for each in group:
        end = each.start + each.count
        base, low, high = spans.get(id(each.base), (each.base, each.start, end))
        spans[id(base)] = base, min(low, each.start), max(high, end)
    parts, offsets, length = [], {}, 0
    for key, (base, low, high) in spans.items():
        parts.append(base[low:high])
        offsets[key] = length - low
        length += high - low
    copy, event = transfer(torch.cat(parts) if len(parts) > 1 else parts[0])
    for each in group:
        each.arrive(copy, offsets[id(each.base)] + each.start, event)
    return event


def words_of(tensor: Tensor) -> Words:
    """The words of a tensor that was made just now, in the present stream of its device.

    They may be sent later only from CUDA's default stream: it is always there, and orders itself.
    """
    words = Words(tensor.reshape(-1))
    is_waiting = _is_on_default_stream(tensor.device) if tensor.is_cuda else tensor.is_cpu
    if not is_waiting:
        words.send(copied)
    return words


def to_host(tensor: Tensor) -> tuple[Tensor, Any]:
    """Copy what was made on the default stream to the host, from whatever stream is present."""
    device = tensor.device
    if device.type != "cuda" or _is_on_default_stream(device):
        return copied(tensor)
    with torch.cuda.stream(torch.cuda.default_stream(device)):
        return copied(tensor)


def copied(tensor: Tensor) -> tuple[Tensor, Any]:
    """Copy a tensor to the host, in the present stream, while the program goes on."""
    pinned = tensor.device.type in ("cuda", "xpu")
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=pinned)
    copy.copy_(tensor, non_blocking=True)
    event = torch.Event(tensor.device)
    event.record()
    return copy, event


def _is_on_default_stream(device: torch.device) -> bool:
    return bool(torch._C._cuda_getCurrentRawStream(device.index) == _DEFAULT_STREAM)
