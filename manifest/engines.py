"""Engines of generators: what a kept state says to people, beside its bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

from manifest.errors import StateNotRestorable
from manifest.states import decoded

_TWISTER: Final = "Mersenne Twister"
_WORDS: Final = 624
_KEY_BYTES: Final = 4 * _WORDS
_TORCH_BYTES: Final = 5056

_Told = Callable[[bytes], str]


def engine(entry: Mapping[str, Any]) -> str:
    """Name the engine of a generator and how far it is, as its entry in a manifest tells.

    Nothing is said of a state that does not have the form of its kind.

    Example:
        >>> engine({"kind": "torch.cuda", "state": {"$bytes": "BwAAAAAAAAAIAAAAAAAAAA=="}})
        'Philox, seed 7, offset 8'
    """
    try:
        data = decoded("", entry)
    except StateNotRestorable:
        return ""
    for key in ("bit_generator", "device", "kind"):
        told = _TOLD.get(_name(entry.get(key)))
        if told is not None:
            return _safely(told, data)
    return ""


def _name(value: Any) -> str:
    """Of an engine; ``torch.cuda`` and ``cuda:0`` have the same."""
    return value.removeprefix("torch.").partition(":")[0] if isinstance(value, str) else ""


def _safely(told: _Told, data: bytes) -> str:
    try:
        return told(data)
    except struct.error:
        return ""


def _twister(form: str) -> _Told:
    """Of the words that are there at once, some have been drawn."""

    def told(data: bytes) -> str:
        (drawn,) = struct.unpack_from(form, data, _KEY_BYTES)
        return f"{_TWISTER}, {drawn} of {_WORDS} words drawn"

    return told


def _torch(data: bytes) -> str:
    if len(data) != _TORCH_BYTES:
        return ""
    seed, left = struct.unpack_from("<Qi", data)
    return f"{_TWISTER}, seed {seed}, {_WORDS + 1 - left} of {_WORDS} words drawn"


def _counter(data: bytes) -> str:
    seed, offset = struct.unpack("<QQ", data)
    return f"Philox, seed {seed}, offset {offset}"


def _philox(data: bytes) -> str:
    counter = int.from_bytes(data[:32], "little")
    return f"Philox, counter {counter}" if len(data) >= 32 else ""


def _plain(name: str) -> _Told:
    return lambda _: name


_TOLD: Final[Mapping[str, _Told]] = {
    "MT19937": _twister("<H"),
    "PCG64": _plain("PCG64"),
    "PCG64DXSM": _plain("PCG64DXSM"),
    "Philox": _philox,
    "SFC64": _plain("SFC64"),
    "cpu": _torch,
    "cuda": _counter,
    "numpy.RandomState": _twister("<H"),
    "numpy.legacy": _twister("<H"),
    "python": _twister("<I"),
    "random.Random": _twister("<I"),
    "xpu": _counter,
}
