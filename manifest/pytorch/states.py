"""States and fingerprints of the generators that the whole program shares.

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

from manifest import accelerators, states

_WORDS = 624
_MT19937 = struct.Struct(f"<{_WORDS}Ii")
_PYTHON = struct.Struct(f"<i{_WORDS}I")
_POSITION = 4  # bytes, before the words of Python's generator and behind those of NumPy's
_END = 20  # bytes: some words, at one end with the position

# In the 5056 bytes of the CPU generator, padding lies between these two parts.
_TORCH_SIZE = 5056
_TORCH_WHOLE = ctypes.c_char * _TORCH_SIZE
_TORCH_STATE = ctypes.c_char * 5044
_TORCH_FLOAT_OFFSET, _TORCH_FLOAT_SIZE = 5048, 5
_NO_FLOAT = bytes(_TORCH_FLOAT_SIZE)

_KEPT = struct.Struct("<i4xd")
_NO_KEPT = bytes(_KEPT.size)


class Generators:
    """Reads the states of all shared generators that exist by now."""

    def __init__(self) -> None:
        self._python: _Python | None = None
        self._numpy: _NumPy | None = None

    def digests(self) -> dict[str, bytes]:
        """The digest of each state, by the name of the generator."""
        digests = {"torch.cpu": _torch_digest()}
        if (python := self._pythons()) is not None:
            digests["python"] = python.digest()
        if (numpy := self._numpys()) is not None:
            digests["numpy.legacy"] = numpy.digest()
        for backend, index, generator in accelerators.started():
            # Of most kinds a seed and an offset, which the host holds.
            digests[f"{backend}:{index}"] = xxh3_128_digest(states.torch_state(generator))
        return digests

    def states(self) -> dict[str, bytes]:
        """Each state, under the names and in the forms of `manifest.generators`."""
        found = {"torch.cpu": _torch_state()}
        if (python := self._pythons()) is not None:
            found["python"] = python.state()
        if (numpy := self._numpys()) is not None and (state := numpy.state()) is not None:
            found["numpy.legacy"] = state
        for backend, index, generator in accelerators.started():
            found[f"torch.{backend}.{index}"] = states.torch_state(generator)
        return found

    def _pythons(self) -> _Python | None:
        module = sys.modules.get("random")
        if module is None:
            return None
        if self._python is None or self._python.generator is not module._inst:
            self._python = _Python(module._inst)
        return self._python

    def _numpys(self) -> _NumPy | None:
        module = sys.modules.get("numpy.random.mtrand")
        if module is None:
            return None
        bits = module._rand._bit_generator
        if self._numpy is None or self._numpy.bits is not bits:
            self._numpy = _NumPy(module, bits)
        return self._numpy


class _Python:
    """The generator behind the functions of `random`."""

    def __init__(self, generator: Any) -> None:
        self.generator = generator
        self._words = self._slow_words
        self._memory: Any = None
        if type(generator).__basicsize__ >= object.__basicsize__ + _PYTHON.size:
            address = id(generator) + object.__basicsize__
            self._words = _digesting(address, _PYTHON, self._slow_words)
            if self._words != self._slow_words:  # it lies where it is expected
                self._memory = (ctypes.c_char * _PYTHON.size).from_address(address)

    def digest(self) -> bytes:
        words, gauss = self._words(), self.generator.gauss_next
        return words if gauss is None else xxh3_128_digest(words + struct.pack("<d", gauss))

    def state(self) -> bytes:
        if self._memory is None:
            return states.python_state(self.generator)
        memory: bytes = self._memory.raw
        gauss = self.generator.gauss_next
        end = struct.pack("<?d", gauss is not None, gauss or 0.0)
        return memory[_POSITION:] + memory[:_POSITION] + end

    def _slow_words(self) -> bytes:
        words = self.generator.getstate()[1]
        return xxh3_128_digest(_PYTHON.pack(words[-1], *words[:-1]))


class _NumPy:
    """NumPy's global generator, with the second value that `normal` keeps back."""

    def __init__(self, module: Any, bits: Any) -> None:
        self.bits = bits
        self._module = module
        self._get_state = module.get_state
        self._words = self._slow_text
        self._end: Any = None
        self._last: tuple[tuple[bytes, bytes], bytes | None] = ((b"", b""), None)
        if type(bits).__name__ == "MT19937":
            address = int(bits.ctypes.state_address)
            self._words = _digesting(address, _MT19937, self._slow_words)
            if self._words != self._slow_words:  # it lies where it is expected
                self._end = (ctypes.c_char * _END).from_address(address + _MT19937.size - _END)
        self._kept = _reading_kept(self._get_state.__self__) or self._slow_kept

    def digest(self) -> bytes:
        words, kept = self._words(), self._kept()
        return words if kept == _NO_KEPT else xxh3_128_digest(words + kept)

    def state(self) -> bytes | None:
        if self._end is None:
            return states.legacy_state(self._module)
        seen = (self._end.raw, self._kept())
        if seen != self._last[0]:
            self._last = (seen, states.legacy_state(self._module))
        return self._last[1]

    def _slow_kept(self) -> bytes:
        state = self._get_state(legacy=False)
        return _KEPT.pack(state["has_gauss"], state["gauss"])

    def _slow_words(self) -> bytes:
        state = self._get_state(legacy=False)["state"]
        return xxh3_128_digest(_MT19937.pack(*state["key"].tolist(), state["pos"]))

    def _slow_text(self) -> bytes:
        parts = self._get_state(legacy=False)["state"].values()
        return xxh3_128_digest(
            b"".join(p.tobytes() if hasattr(p, "tobytes") else str(p).encode() for p in parts)
        )


def _digesting(address: int, form: struct.Struct, slow: Callable[[], bytes]) -> Callable[[], bytes]:
    if sys.implementation.name != "cpython" or sys.byteorder != "little":
        return slow
    content = (ctypes.c_char * form.size).from_address(address)
    # Any draw moves the position, which is at one of the ends, and making new words changes all of
    # them: while both ends are as they were, the words between need not be read.
    start_view = (ctypes.c_char * _END).from_address(address)
    end_view = (ctypes.c_char * _END).from_address(address + form.size - _END)
    last = (b"", b"", b"")

    def digest() -> bytes:
        nonlocal last
        start, end = start_view.raw, end_view.raw
        if start != last[0] or end != last[1]:
            last = (start, end, xxh3_128_digest(content))
        return last[2]

    return digest if digest() == slow() else slow


def _reading_kept(generator: Any) -> Callable[[], bytes] | None:
    # Where in a RandomState the value lies is looked up in one of our own that keeps one.
    if sys.implementation.name != "cpython" or sys.byteorder != "little":
        return None
    kind = sys.modules["numpy.random.mtrand"].RandomState
    other = kind(sys.modules["numpy.random._mt19937"].MT19937(0))
    other.standard_normal()
    kept = _KEPT.pack(1, other.get_state(legacy=False)["gauss"])
    offset = ctypes.string_at(id(other), kind.__basicsize__).find(kept)
    if offset < 0 or type(generator) is not kind:
        return None
    return lambda: ctypes.string_at(id(generator) + offset, _KEPT.size)


def _torch_state() -> bytes:
    state = torch.default_generator.get_state()
    if state.nbytes != _TORCH_SIZE:
        return _content(state)
    content: bytes = _TORCH_WHOLE.from_address(state.data_ptr()).raw
    return content


def _torch_digest() -> bytes:
    state = torch.default_generator.get_state()
    if state.nbytes != _TORCH_SIZE:
        return xxh3_128_digest(_content(state))
    address = state.data_ptr()
    digest = xxh3_128_digest(_TORCH_STATE.from_address(address))
    kept = ctypes.string_at(address + _TORCH_FLOAT_OFFSET, _TORCH_FLOAT_SIZE)
    return digest if kept == _NO_FLOAT else xxh3_128_digest(digest + kept)


def _content(state: torch.Tensor) -> bytes:
    return ctypes.string_at(state.data_ptr(), state.nbytes)
