"""Fingerprints of the generators that the whole program shares.

States are read where they lie in memory, as reading them through their own functions costs more
than all the rest of a step. Whether a state lies where it is expected is checked once against the
public function; where it does not, that function is used. Nothing is imported, started or drawn.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Callable
from typing import Any

import torch
from xxhash import xxh3_128_digest

_WORDS = 624
_MT19937 = struct.Struct(f"<{_WORDS}Ii")
_PYTHON = struct.Struct(f"<i{_WORDS}I")

# In the 5056 bytes of the CPU generator, padding lies between these two parts.
_TORCH_SIZE, _TORCH_FLAG_END, _TORCH_FLOAT = 5056, 5044, slice(5048, 5053)


class Generators:
    """Reads the states of all shared generators that exist by now."""

    def __init__(self) -> None:
        self._python: _Python | None = None
        self._numpy: _NumPy | None = None

    def digests(self) -> dict[str, bytes]:
        """The digest of each state, by the name of the generator."""
        return {name: xxh3_128_digest(state) for name, state in self._states().items()}

    def _states(self) -> dict[str, bytes]:
        states = {"torch.cpu": _torch_state()}
        if (module := sys.modules.get("random")) is not None:
            if self._python is None or self._python.generator is not module._inst:
                self._python = _Python(module._inst)
            states["python"] = self._python.state()
        if (module := sys.modules.get("numpy.random.mtrand")) is not None:
            bits = module._rand._bit_generator
            if self._numpy is None or self._numpy.bits is not bits:
                self._numpy = _NumPy(module, bits)
            states["numpy.legacy"] = self._numpy.state()
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            # Seed and offset, which the host holds.
            for index, generator in enumerate(torch.cuda.default_generators):
                states[f"cuda:{index}"] = _content(generator.get_state())
        return states


class _Python:
    """The generator behind the functions of `random`."""

    def __init__(self, generator: Any) -> None:
        self.generator = generator
        self._words = self._slow_words
        if type(generator).__basicsize__ >= object.__basicsize__ + _PYTHON.size:
            address = id(generator) + object.__basicsize__
            self._words = _reader(address, _PYTHON.size, self._slow_words)

    def state(self) -> bytes:
        gauss = self.generator.gauss_next
        return self._words() + (b"" if gauss is None else struct.pack("<d", gauss))

    def _slow_words(self) -> bytes:
        words = self.generator.getstate()[1]
        return _PYTHON.pack(words[-1], *words[:-1])


class _NumPy:
    """NumPy's global generator; the second value that `normal` keeps back is left out."""

    def __init__(self, module: Any, bits: Any) -> None:
        self.bits = bits
        self._get_state = module.get_state
        self.state = self._slow_text
        if type(bits).__name__ == "MT19937":
            address = int(bits.ctypes.state_address)
            self.state = _reader(address, _MT19937.size, self._slow_words)

    def _slow_words(self) -> bytes:
        state = self._get_state(legacy=False)["state"]
        return _MT19937.pack(*state["key"].tolist(), state["pos"])

    def _slow_text(self) -> bytes:
        return b"".join(
            value.tobytes() if hasattr(value, "tobytes") else str(value).encode()
            for value in self._get_state(legacy=False)["state"].values()
        )


def _reader(address: int, size: int, slow: Callable[[], bytes]) -> Callable[[], bytes]:
    if sys.implementation.name != "cpython" or sys.byteorder != "little":
        return slow
    content = (ctypes.c_char * size).from_address(address)

    def read() -> bytes:
        return content.raw

    return read if read() == slow() else slow


def _torch_state() -> bytes:
    content = _content(torch.default_generator.get_state())
    if len(content) != _TORCH_SIZE:
        return content
    return content[:_TORCH_FLAG_END] + content[_TORCH_FLOAT]


def _content(state: torch.Tensor) -> bytes:
    return ctypes.string_at(state.data_ptr(), state.nbytes)
