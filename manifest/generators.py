"""States of the generators that a program shares: the standard library's, NumPy's, PyTorch's.

Read without drawing, validated before they are put back. A library that the program has not
imported is left alone: its generator does not exist yet.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from manifest import accelerators, states
from manifest.canonical import Json
from manifest.errors import StateNotRestorable
from manifest.restoring import RestoredItem, RestoreOutcome
from manifest.states import Setter


def capture_generators() -> dict[str, Json]:
    """The state of every shared generator there is, by name."""
    found: dict[str, Json] = {}
    for name, (capture, _) in _OF_PROCESSOR.items():
        state = capture()
        if state is not None:
            found[name] = {"kind": name, "state": states.encoded(state)}
    found.update(accelerators.capture())
    return found


def restore_generators(recorded: dict[str, Any]) -> dict[str, str]:
    """Put recorded states back.

    Returns:
        For each name ``restored``, ``equal already``, or ``skipped: …`` and ``failed: …`` with
        the reason.

    Raises:
        StateNotRestorable: A state does not have the form of its kind; nothing was set.
    """
    present = capture_generators()
    setters = {name: shared_setter(name, value) for name, value in recorded.items()}
    report: dict[str, str] = {}
    for name, setter in setters.items():
        if _is_same(present.get(name), recorded[name]):
            report[name] = "equal already"
        elif isinstance(setter, str):
            report[name] = f"skipped: {setter}"
        else:
            report[name] = _set(setter)
    read_back = capture_generators()
    for name, outcome in report.items():
        # Seeds that waited for a device are gone from the queue once it has taken them.
        is_taken = "state" not in recorded[name] and name not in read_back
        is_read_back = is_taken or _is_same(read_back.get(name), recorded[name])
        if outcome == "restored" and not is_read_back:
            report[name] = "failed: it was set, but reads otherwise"
    return report


def restore_shared(recorded: dict[str, Any]) -> list[RestoredItem]:
    """Put recorded states back, all or, where one does not have its form, none."""
    try:
        outcomes = restore_generators(recorded)
    except StateNotRestorable as error:
        return [RestoredItem("generators", "failed", f"{error}; none was set")]
    said = {name: outcome.partition(": ") for name, outcome in outcomes.items()}
    return [
        RestoredItem(name, cast("RestoreOutcome", outcome), reason)
        for name, (outcome, _, reason) in said.items()
    ]


def obstacles(recorded: dict[str, Any]) -> list[RestoredItem]:
    """What `restore_shared` would not put back, without setting anything."""
    try:
        setters = {name: shared_setter(name, value) for name, value in recorded.items()}
    except StateNotRestorable as error:
        return [RestoredItem("generators", "failed", str(error))]
    return [
        RestoredItem(name, "skipped", setter)
        for name, setter in setters.items()
        if isinstance(setter, str)
    ]


def _set(setter: Setter) -> str:
    try:
        setter()
    except Exception as error:  # of a library; the others are set all the same
        return f"failed: {type(error).__name__}: {error}"
    return "restored"


def renew_device_generators() -> None:
    """Write the state of each device in use back to it, as a program that continues will.

    The dropout of RNNs in cuDNN keeps a state of its own, which nothing can read; after any
    writing of the generator it is made anew, from the generator. Written at the same place by the
    run that goes on and by the one that continues it, both go on alike.
    """
    for _, _, generator in accelerators.started():
        with suppress(Exception):  # what cannot be read is in the snapshot as such
            generator.set_state(generator.get_state())


def is_shared(name: str) -> bool:
    """Whether a generator of this name is one that the whole program shares."""
    return name in _OF_PROCESSOR or accelerators.is_name(name)


def _is_same(present: Any, recorded: Any) -> bool:
    # What a state is described with is for people, and earlier versions gave less.
    if isinstance(present, dict) and isinstance(recorded, dict) and "state" in recorded:
        return bool(present.get("state") == recorded["state"])
    return bool(present == recorded)


def shared_setter(name: str, value: Any) -> Setter | str:
    """What puts an entry of `capture_generators` back, or why nothing does.

    Raises:
        StateNotRestorable: The entry does not have the form of its kind.
    """
    if name not in _OF_PROCESSOR:
        return accelerators.setter(name, value)
    setter = _OF_PROCESSOR[name][1](states.decoded(name, value))
    return "the library is not imported here" if setter is None else setter


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


_OF_PROCESSOR: dict[str, tuple[Callable[[], bytes | None], Callable[[bytes], Setter | None]]] = {
    "python": (_capture_python, _python_setter),
    "numpy.legacy": (_capture_numpy, _numpy_setter),
    "torch.cpu": (_capture_torch, _torch_setter),
}
"""What reads the state of each generator of the processor, and what puts it back."""
