"""States and fingerprints of generators: those that the whole program shares, and those of its own.

States are read where they lie in memory, as reading them through their own functions costs more
than all the rest of a step. Whether a state lies where it is expected is checked once against the
public function; where it does not, that function is used. Nothing is imported, started or drawn.
"""

from __future__ import annotations

import ctypes
import struct
import sys
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from xxhash import xxh3_128_digest

from manifest import accelerators, states
from manifest.streams import UNOBSERVED, WORD_SIZE

_WORDS = 624
_MT19937 = struct.Struct(f"<{_WORDS}Ii")
_PYTHON = struct.Struct(f"<i{_WORDS}I")
_POSITION = 4  # bytes, before the words of Python's generator and behind those of NumPy's
_PYTHON_END = struct.Struct("<?d")
_LEGACY_END = struct.Struct("<H?d")
_END = 20  # bytes: some words, at one end with the position

# In the 5056 bytes of the CPU generator, padding lies between these two parts.
_TORCH_SIZE = 5056
_TORCH_WHOLE = ctypes.c_char * _TORCH_SIZE
_TORCH_STATE = ctypes.c_char * 5044
_TORCH_FLOAT = slice(5048, 5053)
_TORCH_HEAD, _TORCH_TAIL = slice(0, 24), slice(4996, 5044)  # the position; a second normal
_NO_FLOAT = bytes(5)
_TORCH_OBJECT_START = 256  # bytes of the object itself, in which its words begin
_TORCH_END = 40  # bytes: a few words, before them the position, behind them two kept normals

_KEPT = struct.Struct("<i4xd")
_NO_KEPT = bytes(_KEPT.size)

_MOST_OWN = 32
_NO_NAMES: tuple[str, ...] = ()

Named = Iterable[tuple[str, object]]

Copy = tuple[Callable[[Any], bytes], Any]
"""A state as it is copied fastest, after what brings the copy into the form of the state."""


@dataclass(slots=True)
class Drawn:
    """The digests of generators at one moment, each by name."""

    names: tuple[str, ...]
    digests: list[bytes]
    own_names: tuple[str, ...] = _NO_NAMES
    own_digests: list[bytes] | tuple[()] = ()
    _cell: bytes = b""

    def cell(self) -> bytes:
        """Half a digest of those that are shared, and half of the program's own."""
        if not self._cell:
            self._cell = _half(self.digests) + _half(self.own_digests)
        return self._cell

    def by_name(self) -> dict[str, bytes]:
        """The digest of each."""
        shared = zip(self.names, self.digests, strict=True)
        return {**dict(shared), **dict(zip(self.own_names, self.own_digests, strict=True))}


class Generators:
    """Reads the states of all generators that are known by now.

    Args:
        own: Gives those of the program's own that are to be read, by name.
    """

    def __init__(self, own: Callable[[], Named] | None = None) -> None:
        self._torch = _Torch()
        self._python: _Python | None = None
        self._numpy: _NumPy | None = None
        self._names: tuple[str, ...] = ()
        self._own_given = own
        self._own: list[tuple[str, Callable[[], bytes | None]]] = []
        self._own_names = _NO_NAMES
        self._is_stale = own is not None
        self._last: Drawn | None = None
        self._default: torch.Generator | None = None
        self._default_ends: list[Any] = []
        self._ends: list[Any] | None = None
        self._content = b""

    def look_again(self) -> None:
        """Ask for the program's own once more, at the next reading."""
        self._is_stale = self._own_given is not None

    def let_go(self) -> None:
        """Read none of the program's own any more, and keep none alive."""
        self._own, self._own_given, self._is_stale = [], None, False

    def read(self) -> Drawn:
        """The digest of each state."""
        devices = accelerators.started()
        if self._last is not None and not devices and self._are_unchanged():
            return self._last
        self._last = None
        drawn = self._read(devices)
        if not devices and not self._own:
            self._remember(drawn)
        return drawn

    def _are_unchanged(self) -> bool:
        # Most steps of most programs draw nothing here; then it is one look at a few dozen bytes.
        ends, python, numpy = self._ends, self._python, self._numpy
        if ends is None or python is None or numpy is None or self._is_stale:
            return False
        modules = sys.modules
        random, mtrand = modules.get("random"), modules.get("numpy.random.mtrand")
        if random is None or random._inst is not python.generator:
            return False
        if mtrand is None or mtrand._rand._bit_generator is not numpy.bits:
            return False
        if self._default is not torch.default_generator or random._inst.gauss_next is not None:
            return False
        return b"".join(ends) == self._content

    def _remember(self, drawn: Drawn) -> None:
        if self._default is not torch.default_generator:
            self._default, self._ends = torch.default_generator, None
            self._default_ends = _torch_ends(self._default)
        python, numpy = self._python, self._numpy
        if python is None or numpy is None or python.generator.gauss_next is not None:
            return
        if self._ends is None:
            found = [self._default_ends, python.ends, numpy.ends]
            self._ends = [end for ends in found for end in ends] if all(found) else None
        if self._ends is not None:
            self._content = b"".join(self._ends)
            self._last = drawn

    def _read(self, devices: list[accelerators.Started]) -> Drawn:
        digests = [self._torch.digest(torch.default_generator)]
        if (python := self._pythons()) is not None:
            digests.append(python.digest())
        if (numpy := self._numpys()) is not None:
            digests.append(numpy.digest())
        # Of most kinds a seed and an offset, which the host holds.
        digests += [xxh3_128_digest(states.torch_state(each.generator)) for each in devices]
        if len(self._names) != len(digests):
            self._names = _shared_names(python, numpy, devices)
        drawn = Drawn(self._names, digests)
        if self._own or self._is_stale:
            self._read_own(drawn)
        return drawn

    def copies(self) -> dict[str, Copy]:
        """Each state that is shared, under the names and in the forms of `manifest.generators`."""
        found: dict[str, Copy] = {"torch.cpu": (_content, torch.default_generator.get_state())}
        if (python := self._pythons()) is not None:
            found["python"] = python.copy()
        if (numpy := self._numpys()) is not None and (copy := numpy.copy()) is not None:
            found["numpy.legacy"] = copy
        for backend, device, generator in accelerators.started():
            found[f"torch.{backend}.{device}"] = bytes, states.torch_state(generator)
        return found

    def _pythons(self) -> _Python | None:
        module = sys.modules.get("random")
        if module is None:
            return None
        if self._python is None or self._python.generator is not module._inst:
            self._python, self._ends = _Python(module._inst), None
        return self._python

    def _numpys(self) -> _NumPy | None:
        module = sys.modules.get("numpy.random.mtrand")
        if module is None:
            return None
        bits = module._rand._bit_generator
        if self._numpy is None or self._numpy.bits is not bits:
            self._numpy, self._ends = _NumPy(module.get_state, bits), None
        return self._numpy

    def _read_own(self, drawn: Drawn) -> None:
        if self._is_stale and self._own_given is not None:
            self._is_stale = False
            given = list(self._own_given())[:_MOST_OWN]
            self._own = [(name, _own_reader(generator)) for name, generator in given]
            self._own_names = tuple(name for name, _ in self._own)
        digests = [read() for _, read in self._own]
        if None in digests:  # some have ended
            self._own = [each for each, d in zip(self._own, digests, strict=True) if d is not None]
            self._own_names = tuple(name for name, _ in self._own)
        drawn.own_names = self._own_names
        drawn.own_digests = [digest for digest in digests if digest is not None]


def _shared_names(
    python: object, numpy: object, devices: Iterable[accelerators.Started]
) -> tuple[str, ...]:
    names = ["torch.cpu"]
    names += ["python"] if python is not None else []
    names += ["numpy.legacy"] if numpy is not None else []
    return (*names, *(f"{each.backend}:{each.device}" for each in devices))


def _half(digests: list[bytes] | tuple[()]) -> bytes:
    if len(digests) == 1:
        return digests[0][:WORD_SIZE]
    return (xxh3_128_digest(b"".join(digests)) if digests else UNOBSERVED)[:WORD_SIZE]


def _own_reader(generator: Any) -> Callable[[], bytes | None]:
    """What reads the state of one generator; gives None once a `torch.Generator` has ended.

    Those of other kinds are only given by whoever keeps them alive.
    """
    match states.kind_of(generator):
        case "torch.Generator":
            reader = _Torch()
            try:
                reference = weakref.ref(generator)
            except TypeError:  # of an older PyTorch: whoever gave it keeps it alive
                return lambda: reader.digest(generator)

            def read() -> bytes | None:
                living = reference()
                return None if living is None else reader.digest(living)

            return read
        case "random.Random" if type(generator).getstate is _random().getstate:
            return _Python(generator).digest
        case "numpy.RandomState":
            return _NumPy(generator.get_state, generator._bit_generator).digest
    return lambda: xxh3_128_digest(states.state_of(generator))


def _random() -> Any:
    return sys.modules["random"].Random


class _Python:
    """The generator behind the functions of `random`."""

    def __init__(self, generator: Any) -> None:
        self.generator = generator
        self._words = self._slow_words
        self._copied: Callable[[], bytes] | None = None
        self.ends: list[Any] = []
        if type(generator).__basicsize__ >= object.__basicsize__ + _PYTHON.size:
            address = id(generator) + object.__basicsize__
            self._words = _digesting(address, _PYTHON, self._slow_words)
            if self._words != self._slow_words:  # it lies where it is expected
                self._copied = _following(address, _PYTHON, bytes)
                self.ends = _ends(address, _PYTHON.size)

    def digest(self) -> bytes:
        words, gauss = self._words(), self.generator.gauss_next
        return words if gauss is None else xxh3_128_digest(words + struct.pack("<d", gauss))

    def copy(self) -> Copy:
        if self._copied is None:
            return bytes, states.python_state(self.generator)
        return _python_form, (self._copied(), self.generator.gauss_next)

    def _slow_words(self) -> bytes:
        words = self.generator.getstate()[1]
        return xxh3_128_digest(_PYTHON.pack(words[-1], *words[:-1]))


class _NumPy:
    """A legacy generator of NumPy, with the second value that `normal` keeps back."""

    def __init__(self, get_state: Callable[..., Any], bits: Any) -> None:
        self.bits = bits
        self._get_state = get_state
        self._words = self._slow_text
        self._copied: Callable[[], bytes] | None = None
        self.ends: list[Any] = []
        if type(bits).__name__ == "MT19937":
            address = int(bits.ctypes.state_address)
            self._words = _digesting(address, _MT19937, self._slow_words)
            if self._words != self._slow_words:  # it lies where it is expected
                self._copied = _following(address, _MT19937, bytes)
        kept = _kept_of(getattr(get_state, "__self__", None))
        self._kept = self._slow_kept
        if kept is not None:
            self._kept = lambda: bytes(kept.raw)
            if self._copied is not None:
                self.ends = [*_ends(address, _MT19937.size), kept]

    def digest(self) -> bytes:
        words, kept = self._words(), self._kept()
        return words if kept == _NO_KEPT else xxh3_128_digest(words + kept)

    def copy(self) -> Copy | None:
        if self._copied is not None:
            return _legacy_form, (self._copied(), self._kept())
        state = states.legacy_state(getattr(self._get_state, "__self__", None))
        return None if state is None else (bytes, state)

    def _slow_kept(self) -> bytes:
        state = self._get_state(legacy=False)
        return _KEPT.pack(state.get("has_gauss", 0), state.get("gauss", 0.0))

    def _slow_words(self) -> bytes:
        state = self._get_state(legacy=False)["state"]
        return xxh3_128_digest(_MT19937.pack(*state["key"].tolist(), state["pos"]))

    def _slow_text(self) -> bytes:
        parts = self._get_state(legacy=False)["state"].values()
        return xxh3_128_digest(
            b"".join(p.tobytes() if hasattr(p, "tobytes") else str(p).encode() for p in parts)
        )


def _python_form(copied: tuple[bytes, float | None]) -> bytes:
    memory, gauss = copied
    end = _PYTHON_END.pack(gauss is not None, gauss or 0.0)
    return memory[_POSITION:] + memory[:_POSITION] + end


def _legacy_form(copied: tuple[bytes, bytes]) -> bytes:
    memory, kept = copied
    position = int.from_bytes(memory[-_POSITION:], "little")
    return memory[:-_POSITION] + _LEGACY_END.pack(position, *_KEPT.unpack(kept))


def _digesting(address: int, form: struct.Struct, slow: Callable[[], bytes]) -> Callable[[], bytes]:
    if sys.implementation.name != "cpython" or sys.byteorder != "little":
        return slow
    digest = _following(address, form, xxh3_128_digest)
    return digest if digest() == slow() else slow


def _following(
    address: int, form: struct.Struct, read: Callable[[Any], bytes]
) -> Callable[[], bytes]:
    """What reads the words at an address; again only when they have changed."""
    content = (ctypes.c_char * form.size).from_address(address)
    # Any draw moves the position, which is at one of the ends, and making new words changes all of
    # them: while both ends are as they were, the words between need not be read.
    start_view, end_view = _ends(address, form.size)
    last = (b"", b"", b"")

    def following() -> bytes:
        nonlocal last
        start, end = start_view.raw, end_view.raw
        if start != last[0] or end != last[1]:
            last = (start, end, read(content))
        return last[2]

    return following


def _ends(address: int, size: int) -> list[Any]:
    end = ctypes.c_char * _END
    return [end.from_address(address), end.from_address(address + size - _END)]


def _torch_ends(generator: torch.Generator) -> list[Any]:
    """Both ends of the state of the CPU generator where it lies; none if it is not found there.

    Source: `CPUGeneratorImpl` in ATen: seed, left, seeded, next, 624 words, two kept normals.
    """
    address = getattr(generator, "_cdata", 0)
    state = generator.get_state()
    if sys.byteorder != "little" or not address or state.nbytes != _TORCH_SIZE:
        return []
    words = b"".join(
        word.to_bytes(4, "little")
        for word in struct.unpack_from("<8Q", _content(state), _TORCH_HEAD.stop)
    )
    place = ctypes.string_at(address, _TORCH_OBJECT_START).find(words)
    if place < _END:
        return []
    start = address + place - _END
    return [
        (ctypes.c_char * _TORCH_END).from_address(start),
        (ctypes.c_char * _TORCH_END).from_address(start + _END + 4 * (_WORDS - 4)),
    ]


def _kept_of(generator: Any) -> Any:
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
    return (ctypes.c_char * _KEPT.size).from_address(id(generator) + offset)


class _Torch:
    """A generator of PyTorch, on whatever device."""

    def __init__(self) -> None:
        self._ends = (b"", b"", b"")
        self._digest = b""

    def digest(self, generator: torch.Generator) -> bytes:
        state = generator.get_state()
        if state.nbytes != _TORCH_SIZE:
            return xxh3_128_digest(_content(state))
        address = state.data_ptr()
        view: Any = _TORCH_WHOLE.from_address(address)  # whose slices are bytes
        ends = view[_TORCH_HEAD], view[_TORCH_TAIL], view[_TORCH_FLOAT]
        # As with the others, the words between need not be read where both ends are as they were.
        if ends != self._ends:
            digest = xxh3_128_digest(_TORCH_STATE.from_address(address))
            kept = ends[2]
            self._digest = digest if kept == _NO_FLOAT else xxh3_128_digest(digest + kept)
            self._ends = ends
        return self._digest


def _content(state: torch.Tensor) -> bytes:
    return ctypes.string_at(state.data_ptr(), state.nbytes)
