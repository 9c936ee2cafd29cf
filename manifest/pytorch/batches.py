"""Fingerprints of what a data loader delivers, and of losses, gathered from step to step."""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import torch
from torch import Tensor
from xxhash import xxh3_128, xxh3_128_digest

from manifest.pytorch.sums import device_sum
from manifest.pytorch.tensors import fingerprint, is_on_host, number_and_fingerprint
from manifest.pytorch.transfers import Number, Reading, Words, words_of
from manifest.streams import UNOBSERVED

_DEEPEST = 32
_REAL = frozenset((torch.float32, torch.float64, torch.float16, torch.bfloat16))
# Any odd constant keeps the fold one-to-one; this is 2**64 divided by the golden ratio.
_FOLD = 0x9E3779B97F4A7C15 - 2**64


class Gathering:
    """One digest over everything given since the last `take`, in constant memory."""

    __slots__ = ("_digest", "_first", "_folds", "_is_empty")

    def __init__(self) -> None:
        self._is_empty = True
        self._first: bytes | None = None
        self._digest = xxh3_128()
        self._folds: dict[torch.device, Words] = {}

    def add(self, value: object) -> None:
        """Add a tensor, or any nest of containers, numbers, texts and tensors.

        Of an object of any other kind only the name of its type counts; where there is nothing
        else, nothing was seen.
        """
        if self._is_empty and type(value) is Tensor and value.is_cpu:
            self._first = fingerprint(value)
            self._is_empty = False
            return
        if self._first is not None:
            self._digest.update(self._first)
            self._first = None
        self._absorb(value, _DEEPEST)

    def take(self) -> list[bytes] | Reading | None:
        """The digest of what was added, on its way if part of it is; None if nothing was."""
        if self._is_empty:
            self._digest.reset()
            return None
        if self._first is not None:
            first, self._first, self._is_empty = self._first, None, True
            return [xxh3_128_digest(first)]
        digest, folds = self._digest.digest(), list(self._folds.values())
        self._is_empty = True
        self._digest.reset()
        self._folds = {}
        if folds:
            sums = [([(place, 0)], fold) for place, fold in enumerate(folds, 1)]
            return Reading([digest, *[None] * len(folds)], sums)
        return [digest]

    def _absorb(self, value: Any, depth: int) -> None:
        if isinstance(value, Tensor):
            self._absorb_tensor(value)
        elif isinstance(value, (list, tuple)) and depth:
            self._is_empty = self._is_empty and bool(value)
            self._digest.update(b"[%d" % len(value))
            for item in value:
                self._absorb(item, depth - 1)
        elif isinstance(value, Mapping) and depth:
            self._is_empty = self._is_empty and bool(value)
            self._digest.update(b"{%d" % len(value))
            for key, item in value.items():
                self._absorb_name(key, depth)
                self._absorb(item, depth - 1)
        elif depth and hasattr(type(value), "__dataclass_fields__"):
            self._digest.update(b"{%d" % len(value.__dataclass_fields__))
            for name in value.__dataclass_fields__:
                self._absorb_name(name, depth)
                self._absorb(getattr(value, name, None), depth - 1)
        else:
            leaf = _leaf(value)
            self._is_empty = self._is_empty and leaf[:1] == b"o"
            self._digest.update(leaf)

    def _absorb_name(self, name: object, depth: int) -> None:
        was_empty = self._is_empty
        self._absorb(name, depth - 1)
        self._is_empty = was_empty

    def _absorb_tensor(self, tensor: Tensor) -> None:
        self._is_empty = False
        if is_on_host(tensor):
            self._digest.update(fingerprint(tensor))
            return
        self._digest.update(f"{tensor.device.type} {tensor.dtype}{list(tensor.shape)}".encode())
        if tensor.layout is torch.strided:
            words, fold = device_sum(tensor), self._folds.get(tensor.device)
            if fold is not None:
                words = words_of(fold.tensor() * _FOLD + words.tensor())
            self._folds[tensor.device] = words


class Losses(Gathering):
    """Losses, which are numbers as well."""

    __slots__ = ("_are_numbers", "_sum", "_sums")

    def __init__(self) -> None:
        super().__init__()
        self._are_numbers = True
        self._sum: float | None = None
        self._sums: dict[torch.device, Tensor] = {}

    def add(self, value: object) -> None:
        """Add a loss, as the program gives it to a backward pass."""
        if self._is_empty and type(value) is Tensor and (known := number_and_fingerprint(value)):
            number, self._first = known
            self._is_empty = False
            self._sum = (self._sum or 0.0) + number
            return
        super().add(value)
        if isinstance(value, (list, tuple)) and len(value) == 1:
            value = value[0]
        if isinstance(value, Tensor):
            self._add_tensor(value)
        elif isinstance(value, (int, float)):
            self._sum = (self._sum or 0.0) + value
        else:
            self._are_numbers = False

    def take_number(self) -> float | Number | None:
        """The sum of what was added since the last time; None if not all of it were numbers."""
        found: float | Number | None = self._sum
        if not self._sums and self._are_numbers:
            self._sum = None
            return found
        if self._sums:
            (total, *others) = self._sums.values()
            found = Number(total) if found is None and not others else None
        if not self._are_numbers:
            found = None
        self.forget_number()
        return found

    def forget_number(self) -> None:
        """Begin the sum anew."""
        self._are_numbers, self._sum = True, None
        if self._sums:
            self._sums = {}

    def _add_tensor(self, tensor: Tensor) -> None:
        if tensor.ndim or tensor.dtype not in _REAL or tensor.is_meta:
            self._are_numbers = False
        elif tensor.is_cpu:
            self._sum = (self._sum or 0.0) + tensor.item()
        else:
            known = self._sums.get(tensor.device)
            # A copy: the program may go on to change the loss.
            wide = torch.float32 if tensor.device.type == "mps" else torch.float64
            lone = tensor.detach().to(wide, copy=True)
            self._sums[tensor.device] = lone if known is None else known + lone


def arrived(observed: list[bytes] | Reading | None) -> list[bytes]:
    """The digests, waited for where need be."""
    if isinstance(observed, Reading):
        return observed.wait()
    return observed or []


def combined(observed: list[bytes] | Reading | None) -> bytes:
    """One digest for several, in order, waited for where need be."""
    if not observed:
        return UNOBSERVED
    digests = observed if type(observed) is list else arrived(observed)
    return digests[0] if len(digests) == 1 else xxh3_128_digest(b"".join(digests))


def _leaf(value: object) -> bytes:
    if value is None or isinstance(value, (bool, int)):
        return b"i%r;" % value
    if isinstance(value, float):
        # The bits of a NaN are not the program's doing in pure Python.
        return b"d" + (b"nan" if math.isnan(value) else struct.pack("<d", value))
    if isinstance(value, str):
        return b"s" + xxh3_128_digest(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return b"b" + xxh3_128_digest(bytes(value))
    if isinstance(value, AbstractSet):
        # Sets of texts have another order in each process.
        return b"<" + b"".join(sorted(xxh3_128_digest(_leaf(item)) for item in value))
    return _array(value) or b"o" + type(value).__qualname__.encode()


def _array(value: Any) -> bytes | None:
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, (numpy.ndarray, numpy.generic)):
        return None
    if value.dtype.hasobject:
        return None
    header = f"a{value.dtype.str}{value.shape}".encode()
    return header + xxh3_128_digest(numpy.ascontiguousarray(value).view(numpy.uint8).data)
