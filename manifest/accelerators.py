"""Generators of accelerators that the program has started, and seeds that wait for others to start.

No device is started to be asked: its generator comes to be with its first use, and a seed that it
was given earlier waits for that.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import FunctionType
from typing import Any, Final, NamedTuple

from manifest import states
from manifest.canonical import Json, failed, plain
from manifest.errors import StateNotRestorable
from manifest.states import Setter

_LAZY: Final = ("cuda", "xpu", "mtia")
_LAZY_MODULES: Final = tuple((backend, f"torch.{backend}") for backend in _LAZY)
_SEEDING: Final = ("manual_seed_all", "manual_seed")
_NAME: Final = re.compile(r"torch\.([a-z_][a-z0-9_]*)(?:\.([0-9]{1,3}))?")
_OF_NO_DEVICE: Final = "torch.cpu"


class Started(NamedTuple):
    """The default generator of a device that is in use."""

    backend: str
    device: int
    generator: Any
    """With the `get_state` and `set_state` of a `torch.Generator`."""


def started() -> list[Started]:
    """The generators of all devices that the program has started, in a fixed order."""
    modules = sys.modules  # asked at every step of a training
    found: list[Started] = []
    for backend, name in _LAZY_MODULES:
        module: Any = modules.get(name)
        if module is not None and module.is_initialized():
            found += _numbered(backend, getattr(module, "default_generators", ()))
    # Of Apple's there is one, kept where it was first asked for.
    mps = modules.get("torch.mps")
    generator = getattr(mps, "_default_mps_generator", None)
    if mps is not None and generator is not None and not mps._is_in_bad_fork():
        found.append(Started("mps", 0, generator))
    torch: Any = modules.get("torch._C")
    name = "" if torch is None else torch._get_privateuse1_backend_name()
    if (registered := modules.get("torch." + name)) is not None:
        found += _started_of(name, registered)
    return found


def _numbered(backend: str, generators: Iterable[Any]) -> Iterator[Started]:
    return (Started(backend, index, generator) for index, generator in enumerate(generators))


def capture() -> dict[str, Json]:
    """The state of each generator by name, and the seeds that wait by backend."""
    found: dict[str, Json] = {}
    for backend, index, generator in started():
        entry = {"kind": f"torch.{backend}", **_state_of(backend, generator)}
        found[f"torch.{backend}.{index}"] = entry
    for backend in _LAZY:
        if waiting := _waiting(backend):
            found[f"torch.{backend}"] = {"kind": f"torch.{backend}", "waiting": waiting}
    return found


def is_name(name: str) -> bool:
    """Whether a generator of this name is one of an accelerator."""
    return _NAME.fullmatch(name) is not None and name != _OF_NO_DEVICE


def setter(name: str, entry: Any) -> Setter | str:
    """What puts an entry of `capture` back, or why nothing does.

    Raises:
        StateNotRestorable: The entry does not have its form.
    """
    matched = _NAME.fullmatch(name)
    if matched is None or name == _OF_NO_DEVICE:
        raise StateNotRestorable(f"generator '{name}' is of no kind that this version knows")
    backend, index = matched.groups()
    if index is None:
        return _seeds_setter(backend, _checked_seeds(name, entry))
    state = entry.get("state") if isinstance(entry, dict) else None
    if isinstance(state, dict) and "$failed" in state:
        return "its state could not be read when it was recorded"
    data = states.decoded(name, entry)
    states.check_device(name, backend, data)
    return _state_setter(name, backend, int(index), entry, data)


def _state_setter(
    name: str, backend: str, index: int, entry: Mapping[str, Any], data: bytes
) -> Setter | str:
    torch = sys.modules.get("torch")
    if torch is None:
        return "the library is not imported here"
    present = {(each.backend, each.device): each.generator for each in started()}
    generator = present.get((backend, index))
    if generator is None:
        return "the program has not started this device here"
    if "torch" in entry and entry["torch"] != str(torch.__version__):
        return f"recorded with torch {str(entry['torch'])[:40]}, whose states may mean other things"
    # What differs in length is of another version: MPS has had two forms.
    states.check(name, len(data) == len(states.torch_state(generator)))
    state = torch.tensor(list(data), dtype=torch.uint8, device="cpu")
    return lambda: generator.set_state(state)


def _seeds_setter(backend: str, seeds: list[tuple[str, int]]) -> Setter | str:
    module = _module(backend)
    if module is None:
        return "the library is not imported here"

    def give() -> None:
        # A device that has started takes them at once, others when they start.
        for call, seed in seeds:
            getattr(module, call)(seed)

    return give


def _checked_seeds(name: str, entry: Any) -> list[tuple[str, int]]:
    try:
        waiting = [(item["call"], _integer(item["seed"])) for item in entry["waiting"]]
    except (TypeError, KeyError, ValueError) as error:
        raise StateNotRestorable(f"generator '{name}' has no readable seeds: {error!r}") from error
    states.check(name, len(waiting) <= len(_SEEDING))
    states.check(name, all(call in _SEEDING and -(2**63) <= n < 2**64 for call, n in waiting))
    return waiting


def _integer(seed: Any) -> int:
    text = seed["$int"] if isinstance(seed, dict) else seed
    if type(text) is int or (isinstance(text, str) and re.fullmatch("-?[0-9]{1,20}", text)):
        return int(text)
    raise ValueError(f"expected an integer, found {str(seed)[:40]!r}")


def _state_of(backend: str, generator: Any) -> dict[str, Json]:
    try:
        state = states.torch_state(generator)
    except Exception as error:  # a backend of somebody's, or a graph that is being captured
        return {"state": failed(error)}
    return {"state": states.encoded(state), **_described(backend, state)}


def _described(backend: str, state: bytes) -> dict[str, Json]:
    """What people can read of a state; of other kinds only the version that knows its form."""
    if backend in ("cuda", "xpu"):
        words = [int.from_bytes(state[at : at + 8], "little") for at in (0, 8)]
        return dict(zip(("seed", "offset"), map(plain, words), strict=True))
    return {"torch": str(sys.modules["torch"].__version__)}


def _waiting(backend: str) -> list[Json]:
    module = _module(backend)
    tracker = getattr(module, "_lazy_seed_tracker", None)
    if tracker is None or module.is_initialized() or not _is_built(module):
        return []
    calls = [call[0] for call in tracker.get_calls() if call]
    return [item for call in calls if (item := _decoded(call)) is not None]


def _decoded(call: Any) -> Json:
    # A closure of `manual_seed` or `manual_seed_all` over the seed that it was given.
    if not isinstance(call, FunctionType):
        return None
    name = call.__qualname__.partition(".")[0]
    values = zip(call.__code__.co_freevars, call.__closure__ or (), strict=False)
    seed = next((cell.cell_contents for free, cell in values if free == "seed"), None)
    return {"call": name, "seed": plain(seed)} if name in _SEEDING and seed is not None else None


def _is_built(module: Any) -> bool:
    # Where PyTorch cannot have such a device, what waits for one waits for ever.
    return bool(module._is_compiled())


def _module(backend: str) -> Any:
    return sys.modules.get(f"torch.{backend}")


def _started_of(backend: str, module: Any) -> Iterable[Started]:
    """The devices of a backend that registered itself with PyTorch (``privateuse1``)."""
    if not getattr(module, "is_initialized", bool)() or getattr(module, "_is_in_bad_fork", bool)():
        return ()
    generators = getattr(module, "default_generators", ())
    if not generators and hasattr(module, "get_rng_state"):
        generators = [_Registered(module, index) for index in range(module.device_count())]
    return _numbered(backend, generators)


class _Registered:
    """The generator of a device whose backend gives functions only."""

    def __init__(self, module: Any, index: int) -> None:
        self._module = module
        self._index = index

    def get_state(self) -> Any:
        return self._module.get_rng_state(self._index)

    def set_state(self, state: Any) -> None:
        self._module.set_rng_state(state, self._index)
