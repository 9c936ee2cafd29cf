"""The state of one generator as plain bytes: read without drawing, validated before it is set.

Each kind has its fixed little-endian form, so that a state needs no pickle and can be trusted as
far as its form allows.

=================  ===============================================================
Mersenne Twister   624 words, position (PyTorch: the bytes that it gives itself)
PCG64, PCG64DXSM   state and increment of 128 bits, cached half word
Philox             counter, key, buffer and its position, cached half word
SFC64              four words, cached half word
=================  ===============================================================
"""

from __future__ import annotations

import base64
import math
import struct
import sys
from collections.abc import Callable, Mapping
from typing import Any

from manifest.canonical import Json
from manifest.errors import StateNotRestorable

Setter = Callable[[], None]

_WORDS = 624  # of a Mersenne Twister
_PYTHON = struct.Struct("<625I?d")
_LEGACY = struct.Struct("<624IH?d")
_BIT_GENERATORS = {
    "MT19937": struct.Struct("<624IH"),
    "PCG64": struct.Struct("<16s16sBI"),
    "PCG64DXSM": struct.Struct("<16s16sBI"),
    "Philox": struct.Struct("<4Q2Q4QBBI"),
    "SFC64": struct.Struct("<4QBI"),
}
_PHILOX = ("cuda", "xpu")  # devices whose state is a seed and an offset
_PHILOX_BYTES = 16
_MPS_BYTES = (36, 44)  # seven words and a seed; since a later version an offset too
_MOST_BYTES = 65_536
_TORCH_BYTES = 5056
_TORCH_POSITION = struct.Struct("<8xi4xQ")  # words left before new ones are made, the next word

# Each is asked for by the module that a program must have imported to have such an object.
_KINDS = (
    ("random.Random", "random", "Random"),
    ("numpy.Generator", "numpy.random", "Generator"),
    ("numpy.BitGenerator", "numpy.random", "BitGenerator"),
    ("numpy.RandomState", "numpy.random", "RandomState"),
    ("torch.Generator", "torch", "Generator"),
)


def kind_of(value: object) -> str | None:
    """What kind of generator an object is; None if it is none."""
    # Not isinstance(), which asks the object, and so runs code of its own.
    bases = type.__getattribute__(type(value), "__mro__")
    for kind, module, name in _KINDS:
        base = getattr(sys.modules.get(module), name, None)
        if base is not None and base in bases:
            return kind
    return None


def bits_of(generator: Any) -> Any:
    """The bit generator that a generator of NumPy draws from; None for other kinds."""
    kind = kind_of(generator)
    if kind == "numpy.Generator":
        return generator.bit_generator
    return generator if kind == "numpy.BitGenerator" else None


def state_of(generator: Any) -> bytes:
    """The state of a generator of any kind.

    Raises:
        StateNotRestorable: It is of no kind whose state is known here.
    """
    match kind_of(generator):
        case "random.Random":
            return python_state(generator)
        case "numpy.Generator" | "numpy.BitGenerator":
            return bit_generator_state(bits_of(generator))
        case "numpy.RandomState":
            state = legacy_state(generator)
            if state is not None:
                return state
        case "torch.Generator":
            return torch_state(generator)
    raise StateNotRestorable(
        "expected a random.Random, a generator of NumPy (with a Mersenne Twister, if it is a "
        "RandomState) or a torch.Generator, "
        f"found {type(generator).__module__}.{type(generator).__qualname__}"
    )


def digest_of(generator: Any) -> str:
    """A digest of the state of a generator; see `state_of`."""
    from xxhash import xxh3_128_hexdigest

    return f"xxh3:{xxh3_128_hexdigest(state_of(generator))}"


def setter_of(name: str, generator: Any, data: bytes) -> Setter:
    """What puts a state back into a generator of any kind.

    Raises:
        StateNotRestorable: The state does not have the form of the kind; nothing was set.
    """
    match kind_of(generator):
        case "random.Random":
            return python_setter(name, generator, data)
        case "numpy.RandomState":
            return legacy_setter(name, generator, data)
        case "torch.Generator":
            return torch_setter(name, generator, data)
    return bit_generator_setter(name, bits_of(generator), data)


def python_state(generator: Any) -> bytes:
    """The state of a `random.Random`, or of the module itself."""
    _, words, gauss = generator.getstate()
    return _PYTHON.pack(*words, gauss is not None, gauss or 0.0)


def python_setter(name: str, generator: Any, data: bytes) -> Setter:
    """What puts a state back; see `python_state`."""
    *words, has_gauss, gauss = _unpack(name, _PYTHON, data)
    check(name, words[_WORDS] <= _WORDS and math.isfinite(gauss))
    return lambda: generator.setstate((3, tuple(words), gauss if has_gauss else None))


def legacy_state(generator: Any) -> bytes | None:
    """The state of a `numpy.random.RandomState`, or of the module itself.

    None if it draws from another bit generator than the one that it always had.
    """
    state = generator.get_state(legacy=False)
    if state["bit_generator"] != "MT19937":
        return None
    inner = state["state"]
    return _LEGACY.pack(*inner["key"].tolist(), inner["pos"], state["has_gauss"], state["gauss"])


def legacy_setter(name: str, generator: Any, data: bytes) -> Setter:
    """What puts a state back; see `legacy_state`."""
    *key, position, has_gauss, gauss = _unpack(name, _LEGACY, data)
    check(name, position <= _WORDS and math.isfinite(gauss))
    state = {
        "bit_generator": "MT19937",
        "state": {"key": sys.modules["numpy"].array(key, dtype="uint32"), "pos": position},
        "has_gauss": int(has_gauss),
        "gauss": gauss,
    }
    return lambda: generator.set_state(state)


def bit_generator_state(bits: Any) -> bytes:
    """The state of a bit generator of NumPy.

    Raises:
        StateNotRestorable: It is of a class that is not known here.
    """
    state: Mapping[str, Any] = bits.state
    form = _bit_generator_form(state["bit_generator"])
    inner = state["state"]
    match state["bit_generator"]:
        case "MT19937":
            return form.pack(*inner["key"].tolist(), inner["pos"])
        case "Philox":
            words = (*inner["counter"].tolist(), *inner["key"].tolist(), *state["buffer"].tolist())
            return form.pack(*words, state["buffer_pos"], state["has_uint32"], state["uinteger"])
        case "SFC64":
            return form.pack(*inner["state"].tolist(), state["has_uint32"], state["uinteger"])
        case _:
            wide = (inner[field].to_bytes(16, "little") for field in ("state", "inc"))
            return form.pack(*wide, state["has_uint32"], state["uinteger"])


def bit_generator_setter(name: str, bits: Any, data: bytes) -> Setter:
    """What puts a state back; see `bit_generator_state`."""
    kind = type(bits).__name__
    values = _unpack(name, _bit_generator_form(kind), data)
    state = {"bit_generator": kind, **_bit_generator_fields(name, kind, values)}
    return lambda: setattr(bits, "state", state)


def _bit_generator_fields(name: str, kind: str, values: tuple[Any, ...]) -> dict[str, Any]:
    array = sys.modules["numpy"].array
    if kind == "MT19937":
        *key, position = values
        check(name, position <= _WORDS)
        return {"state": {"key": array(key, dtype="uint32"), "pos": position}}
    *words, has_half_word, half_word = values
    check(name, has_half_word <= 1)
    cached = {"has_uint32": has_half_word, "uinteger": half_word}
    if kind == "SFC64":
        return {"state": {"state": array(words, dtype="uint64")}, **cached}
    if kind == "Philox":
        counter, key, buffer = (
            array(w, dtype="uint64") for w in (words[:4], words[4:6], words[6:10])
        )
        check(name, words[10] <= 4)
        inner = {"counter": counter, "key": key}
        return {"state": inner, "buffer": buffer, "buffer_pos": words[10], **cached}
    state, increment = (int.from_bytes(word, "little") for word in words)
    check(name, increment % 2 == 1)
    return {"state": {"state": state, "inc": increment}, **cached}


def _bit_generator_form(kind: str) -> struct.Struct:
    form = _BIT_GENERATORS.get(kind)
    if form is None:
        known = ", ".join(_BIT_GENERATORS)
        raise StateNotRestorable(f"bit generator '{kind[:80]}' is none of those known: {known}")
    return form


def torch_state(generator: Any) -> bytes:
    """The state of a `torch.Generator`, as PyTorch gives it."""
    import ctypes

    state = generator.get_state()
    if state.device.type != "cpu":  # of a backend that registered itself
        state = state.cpu()
    return ctypes.string_at(state.data_ptr(), state.nbytes)


def torch_setter(name: str, generator: Any, data: bytes) -> Setter:
    """What puts a state back; see `torch_state`."""
    torch = sys.modules["torch"]
    state = torch.tensor(list(data), dtype=torch.uint8, device="cpu")
    if generator.device.type == "cpu":
        _check_torch(name, torch, state, data)
    else:
        check_device(name, generator.device.type, data)
        check(name, len(data) == len(torch_state(generator)))
    return lambda: generator.set_state(state)


def _check_torch(name: str, torch: Any, state: Any, data: bytes) -> None:
    # PyTorch checks a state where it sets it, but not that its position stays within the words.
    try:
        torch.Generator(device="cpu").set_state(state)
    except RuntimeError as error:
        raise StateNotRestorable(
            f"the recorded state of '{name}' ({state.numel()} bytes) is none that this torch "
            f"takes: {error}"
        ) from error
    if len(data) == _TORCH_BYTES:
        left, position = _TORCH_POSITION.unpack_from(data)
        check(name, left >= 1 and position + left <= _WORDS + 1)


def check_device(name: str, backend: str, data: bytes) -> None:
    """Refuse what is no state of a generator on a device of this kind.

    Raises:
        StateNotRestorable: It is none.
    """
    if backend in _PHILOX:
        check(name, len(data) == _PHILOX_BYTES)
        check(name, int.from_bytes(data[8:], "little") % 4 == 0)  # the offset
    elif backend == "mps":
        check(name, len(data) in _MPS_BYTES)
    else:
        check(name, 0 < len(data) <= _MOST_BYTES)


def encoded(state: bytes) -> Json:
    """A state as it stands in a manifest."""
    return {"$bytes": base64.b64encode(state).decode("ascii")}


def decoded(name: str, entry: Any) -> bytes:
    """The state in an entry of a manifest.

    Raises:
        StateNotRestorable: There is none.
    """
    try:
        return base64.b64decode(entry["state"]["$bytes"], validate=True)
    except (TypeError, KeyError, ValueError) as error:
        raise StateNotRestorable(f"generator '{name}' has no readable state: {error!r}") from error


def check(name: str, is_valid: object) -> None:
    """Refuse a state that does not have the form of its kind.

    Raises:
        StateNotRestorable: It is not valid.
    """
    if not is_valid:
        raise StateNotRestorable(f"the recorded state of '{name}' does not have its form")


def _unpack(name: str, form: struct.Struct, data: bytes) -> tuple[Any, ...]:
    check(name, len(data) == form.size)
    return form.unpack(data)
