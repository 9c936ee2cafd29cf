"""States of the generators that a program shares: the standard library's, NumPy's, PyTorch's.

Read without drawing, kept as plain bytes, validated before they are put back. A library that the
program has not imported is left alone: its generator does not exist yet.
"""

from __future__ import annotations

import base64
import struct
import sys
from collections.abc import Callable
from typing import Any

from manifest.canonical import Json
from manifest.errors import StateNotRestorable

_WORDS = 624  # of a Mersenne Twister
_PYTHON = struct.Struct("<625I?d")
_NUMPY = struct.Struct("<624IH?d")


def capture_generators() -> dict[str, Json]:
    """The state of every shared generator there is, by name."""
    found: dict[str, Json] = {}
    for name, capture in (
        ("python", _capture_python),
        ("numpy.legacy", _capture_numpy),
        ("torch.cpu", _capture_torch),
    ):
        state = capture()
        if state is not None:
            found[name] = {"kind": name, "state": _text(state)}
    found.update(_capture_cuda())
    return found


def restore_generators(recorded: dict[str, Any]) -> dict[str, str]:
    """Put recorded states back.

    Returns:
        For each name ``restored``, ``equal already``, or ``skipped: …`` with the reason.

    Raises:
        StateNotRestorable: A state does not have the form of its kind; nothing was set.
    """
    present = capture_generators()
    setters = {name: _setter(name, value) for name, value in recorded.items()}
    report: dict[str, str] = {}
    for name, setter in setters.items():
        if setter is None:
            report[name] = "skipped: the library is not imported here"
        elif present.get(name) == recorded[name]:
            report[name] = "equal already"
        else:
            setter()
            report[name] = "restored"
    return report


def _setter(name: str, value: Any) -> Callable[[], None] | None:
    data = _bytes(name, value)
    if name == "python":
        return _python_setter(data)
    if name == "numpy.legacy":
        return _numpy_setter(data)
    if name == "torch.cpu":
        return _torch_setter(data)
    if name.startswith("torch.cuda."):
        return _cuda_setter(name, data)
    raise StateNotRestorable(f"generator '{name}' is of no kind that this version knows")


def _capture_python() -> bytes | None:
    random = sys.modules.get("random")
    if random is None:
        return None
    _, words, gauss = random.getstate()
    return _PYTHON.pack(*words, gauss is not None, gauss or 0.0)


def _python_setter(data: bytes) -> Callable[[], None] | None:
    *words, has_gauss, gauss = _unpack("python", _PYTHON, data)
    _check("python", words[_WORDS] <= _WORDS)
    random = sys.modules.get("random")
    if random is None:
        return None
    return lambda: random.setstate((3, tuple(words), gauss if has_gauss else None))


def _capture_numpy() -> bytes | None:
    if sys.modules.get("numpy.random") is None:
        return None
    state = sys.modules["numpy.random"].get_state(legacy=False)
    if state["bit_generator"] != "MT19937":
        return None
    inner = state["state"]
    return _NUMPY.pack(*inner["key"].tolist(), inner["pos"], state["has_gauss"], state["gauss"])


def _numpy_setter(data: bytes) -> Callable[[], None] | None:
    *key, position, has_gauss, gauss = _unpack("numpy.legacy", _NUMPY, data)
    _check("numpy.legacy", position <= _WORDS)
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    state = {
        "bit_generator": "MT19937",
        "state": {"key": numpy.array(key, dtype="uint32"), "pos": position},
        "has_gauss": int(has_gauss),
        "gauss": gauss,
    }
    return lambda: numpy.random.set_state(state)


def _capture_torch() -> bytes | None:
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    return bytes(torch.get_rng_state().numpy())


def _torch_setter(data: bytes) -> Callable[[], None] | None:
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    size = torch.get_rng_state().numel()
    if len(data) != size:
        raise StateNotRestorable(
            f"the recorded state of torch's generator has {len(data)} bytes, "
            f"this torch has {size}: another version of torch?"
        )
    return lambda: torch.set_rng_state(torch.tensor(list(data), dtype=torch.uint8))


def _capture_cuda() -> dict[str, Json]:
    cuda = sys.modules.get("torch.cuda")
    # Reading the state of a device that was never used would create its context.
    if cuda is None or not cuda.is_initialized() or cuda._is_in_bad_fork():
        return {}
    return {
        f"torch.cuda.{index}": {
            "kind": "torch.cuda",
            "state": _text(bytes(generator.get_state().numpy())),
        }
        for index, generator in enumerate(cuda.default_generators)
    }


def _cuda_setter(name: str, data: bytes) -> Callable[[], None] | None:
    _check(name, len(data) == 16)
    torch = sys.modules.get("torch")
    index = name.rpartition(".")[2]
    if torch is None or not index.isdigit():
        return None
    state = torch.tensor(list(data), dtype=torch.uint8)
    return lambda: torch.cuda.set_rng_state(state, int(index))


def _text(state: bytes) -> Json:
    return {"$bytes": base64.b64encode(state).decode("ascii")}


def _bytes(name: str, value: Any) -> bytes:
    try:
        return base64.b64decode(value["state"]["$bytes"], validate=True)
    except (TypeError, KeyError, ValueError) as error:
        raise StateNotRestorable(f"generator '{name}' has no readable state: {error!r}") from error


def _unpack(name: str, form: struct.Struct, data: bytes) -> tuple[Any, ...]:
    _check(name, len(data) == form.size)
    return form.unpack(data)


def _check(name: str, is_valid: object) -> None:
    if not is_valid:
        raise StateNotRestorable(f"the recorded state of '{name}' does not have its form")
