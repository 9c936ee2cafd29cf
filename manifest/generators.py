"""States of the generators that a program shares: the standard library's, NumPy's, PyTorch's.

Read without drawing, validated before they are put back. A library that the program has not
imported is left alone: its generator does not exist yet.
"""

from __future__ import annotations

import sys
from typing import Any

from manifest import states
from manifest.canonical import Json
from manifest.errors import StateNotRestorable
from manifest.states import Setter


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
            found[name] = {"kind": name, "state": states.encoded(state)}
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
    setters = {
        name: shared_setter(name, states.decoded(name, entry)) for name, entry in recorded.items()
    }
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


def renew_device_generators() -> None:
    """Write the state of each device in use back to it, as a program that continues will.

    The dropout of RNNs in cuDNN keeps a state of its own, which nothing can read; after any
    writing of the generator it is made anew, from the generator. Written at the same place by the
    run that goes on and by the one that continues it, both go on alike.
    """
    cuda = sys.modules.get("torch.cuda")
    if cuda is None or not cuda.is_initialized() or cuda._is_in_bad_fork():
        return
    for generator in cuda.default_generators:
        generator.set_state(generator.get_state())


def is_shared(name: str) -> bool:
    """Whether a generator of this name is one that the whole program shares."""
    return name in ("python", "numpy.legacy", "torch.cpu") or name.startswith("torch.cuda.")


def shared_setter(name: str, data: bytes) -> Setter | None:
    """What puts a state back; None if the library is not imported here.

    Raises:
        StateNotRestorable: The state does not have the form of its kind.
    """
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
    return None if random is None else states.python_state(random)


def _python_setter(data: bytes) -> Setter | None:
    random = sys.modules.get("random")
    return None if random is None else states.python_setter("python", random, data)


def _capture_numpy() -> bytes | None:
    random = sys.modules.get("numpy.random")
    return None if random is None else states.legacy_state(random)


def _numpy_setter(data: bytes) -> Setter | None:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    return states.legacy_setter("numpy.legacy", numpy.random, data)


def _capture_torch() -> bytes | None:
    torch = sys.modules.get("torch")
    return None if torch is None else states.torch_state(torch.default_generator)


def _torch_setter(data: bytes) -> Setter | None:
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    return states.torch_setter("torch.cpu", torch.default_generator, data)


def _capture_cuda() -> dict[str, Json]:
    cuda = sys.modules.get("torch.cuda")
    # Reading the state of a device that was never used would create its context.
    if cuda is None or not cuda.is_initialized() or cuda._is_in_bad_fork():
        return {}
    return {
        f"torch.cuda.{index}": {
            "kind": "torch.cuda",
            "state": states.encoded(states.torch_state(generator)),
        }
        for index, generator in enumerate(cuda.default_generators)
    }


def _cuda_setter(name: str, data: bytes) -> Setter | None:
    states.check_cuda(name, data)
    torch = sys.modules.get("torch")
    index = name.rpartition(".")[2]
    if torch is None or not index.isdigit():
        return None
    state = torch.tensor(list(data), dtype=torch.uint8, device="cpu")
    return lambda: torch.cuda.set_rng_state(state, int(index))
