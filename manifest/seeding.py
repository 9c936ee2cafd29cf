"""Seeds that the program gives: which, to which library, at which place.

Noted where a library takes them, under the names that a program may have bound long before: its
functions stay the objects that they are. One exception is `numpy.random.default_rng`, a function
that nothing else goes through. Seeds that libraries give each other, and those given in workers of
a loader, are none of the program's.
"""

from __future__ import annotations

import functools
import sys
from collections import deque
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any, NamedTuple

from manifest.canonical import Json, plain
from manifest.methods import replace_method
from manifest.places import first_outside, module_of, package_of, shown_place

_MOST_PLACES = 64
_MOST_SEEDS = 8
_MOST_ELEMENTS = 64
_LONGEST_TEXT = 200
_MOST_BITS = 4096
_LIBRARIES = ("manifest", "numpy", "random", "torch")
_OF_CONSTRUCTOR = ("random", "manifest.noticing")  # of a `Random`
_SEEDING_OF_DEVICES = ("manual_seed", "manual_seed_all")

_ENDING_IN_METHOD = {"torch.random": "torch.manual_seed", "torch.mps": "torch.mps.manual_seed"}
"""Functions that end in the method of a generator, by their module."""

_Place = tuple[str, int, str]


class Seeds:
    """The seeds that the program has given in this process, the last few of each place."""

    def __init__(self) -> None:
        self._root = ""
        self._given: dict[_Place, _Given] = {}
        self._on_first: Callable[[str, Json], None] | None = None

    def begin(self, root: str, on_first: Callable[[str, Json], None]) -> None:
        """Note seeds for one run.

        Args:
            root: The folder of the project, to which places are relative.
            on_first: Told, by place, the first seed that is given there.
        """
        self._root = root
        self._given = {}
        self._on_first = on_first

    def end(self) -> None:
        """Note no more."""
        self._on_first = None

    def note(self, function: str, seed: object, frame: FrameType | None) -> None:
        """Note a seed that is given at `frame`; never raises."""
        try:
            if self._on_first is not None and frame is not None and not _is_in_worker():
                self._note(function, seed, frame, self._on_first)
        except Exception:  # seeding must not fail for being watched
            pass

    def calls(self) -> dict[str, Json]:
        """What was given, by place: one value, or a list of the last that were not the same."""
        return {
            given.place: given.seeds[0] if len(given.seeds) == 1 else list(given.seeds)
            for given in list(self._given.values())
        }

    def _note(
        self, function: str, seed: object, frame: FrameType, on_first: Callable[[str, Json], None]
    ) -> None:
        if package_of(frame) in _LIBRARIES:
            return
        place = (frame.f_code.co_filename, frame.f_lineno, function)
        given = self._given.get(place)
        if given is not None:
            value = _plain(seed)
            if value != given.seeds[-1]:
                given.seeds.append(value)
        elif len(self._given) < _MOST_PLACES:
            # Named at once: a program may change its folder.
            name = f"{shown_place(*place[:2], self._root)} {function}"
            first = self._given[place] = _Given(name, deque((_plain(seed),), maxlen=_MOST_SEEDS))
            on_first(name, first.seeds[0])


class _Given(NamedTuple):
    place: str
    seeds: deque[Json]


def watch_random(seeds: Seeds, random: Any) -> None:
    """Note what `random.seed`, `Random.seed` and `Random` are given."""
    original = random.Random.seed
    shared: Any = random._inst

    @functools.wraps(original)
    def seed(self: Any, a: Any = None, version: int = 2) -> None:
        original(self, a, version)
        if a is not None:
            function = "random.seed" if self is shared else "random.Random"
            seeds.note(function, a, first_outside(sys._getframe(1), _OF_CONSTRUCTOR))

    random.Random.seed = seed
    if getattr(random.seed, "__self__", None) is shared:
        # The module holds a bound method of the old function.
        random.seed = random._inst.seed


def watch_legacy_numpy(seeds: Seeds, bit_generator: ModuleType) -> None:
    """Note what `numpy.random.seed` and `RandomState` are given."""
    twister = bit_generator.MT19937
    original = vars(twister)["_legacy_seeding"]

    @functools.wraps(original)
    def _legacy_seeding(self: Any, seed: Any) -> Any:
        result = original(self, seed)
        if seed is not None:
            seeds.note(_numpy_function(self), seed, first_outside(sys._getframe(1), ("numpy",)))
        return result

    replace_method(twister, "_legacy_seeding", _legacy_seeding)


def _numpy_function(bits: Any) -> str:
    shared = getattr(sys.modules.get("numpy.random.mtrand"), "_rand", None)
    is_shared = getattr(shared, "_bit_generator", None) is bits
    return "numpy.random.seed" if is_shared else "numpy.random.RandomState"


def watch_numpy(seeds: Seeds, generator: ModuleType) -> None:
    """Note what `default_rng` is given."""
    original = generator.default_rng

    @functools.wraps(original)
    def default_rng(seed: Any = None) -> Any:
        made = original(seed)
        # A generator that is passed through was seeded elsewhere.
        if seed is not None and not hasattr(type(seed), "random_raw") and made is not seed:
            frame = first_outside(sys._getframe(1), ("numpy",))
            seeds.note("numpy.random.default_rng", seed, frame)
        return made

    generator.default_rng = default_rng  # type: ignore[attr-defined]
    package: Any = sys.modules.get("numpy.random")
    if getattr(package, "default_rng", None) is original:
        package.default_rng = default_rng


def watch_torch(seeds: Seeds, torch: ModuleType) -> None:
    """Note what `manual_seed` of `torch` and of its generators is given."""
    original = vars(torch._C.Generator)["manual_seed"]

    @functools.wraps(original)
    def manual_seed(self: Any, seed: Any, /) -> Any:
        result = original(self, seed)
        seeds.note(*_torch_call(seed, sys._getframe(1)))
        return result

    replace_method(torch._C.Generator, "manual_seed", manual_seed)


def _torch_call(seed: object, frame: FrameType | None) -> tuple[str, object, FrameType | None]:
    # The function ends in the method, with the compiler's fences around it once that is loaded.
    function = "torch.Generator.manual_seed"
    while frame is not None:
        module = module_of(frame)
        if module in _ENDING_IN_METHOD:
            function = _ENDING_IN_METHOD[module]
        elif not module.startswith(("torch._compile", "torch._dynamo")):
            break
        frame = frame.f_back
    return function, seed, frame


def watch_device(seeds: Seeds, random: ModuleType) -> None:
    """Note what `manual_seed` and `manual_seed_all` of a kind of device are given."""
    original = random._lazy_call
    backend = random.__name__.removesuffix(".random")

    @functools.wraps(original)
    def _lazy_call(callable: Any, **kwargs: Any) -> Any:  # noqa: A002 -- as it is named there
        result = original(callable, **kwargs)
        frame = sys._getframe(1)
        function = frame.f_code.co_name
        if function in _SEEDING_OF_DEVICES:
            # `torch.manual_seed` comes here too, and is noted as such.
            seeds.note(f"{backend}.{function}", frame.f_locals.get("seed"), frame.f_back)
        return result

    random._lazy_call = _lazy_call  # type: ignore[attr-defined]


WATCHES: tuple[tuple[str, Callable[[Seeds, ModuleType], None]], ...] = (
    ("random", watch_random),
    ("numpy.random._mt19937", watch_legacy_numpy),
    ("numpy.random._generator", watch_numpy),
    ("torch", watch_torch),
    ("torch.cuda.random", watch_device),
    ("torch.xpu.random", watch_device),
    ("torch.mtia", watch_device),
)
"""What takes seeds, by the module that is complete when it can be watched."""


def _is_in_worker() -> bool:
    worker = sys.modules.get("torch.utils.data._utils.worker")
    return getattr(worker, "_worker_info", None) is not None


def _plain(seed: object) -> Json:
    if isinstance(seed, int) and seed.bit_length() > _MOST_BITS:
        return f"an integer of {seed.bit_length()} bits"
    if seed is None or isinstance(seed, (bool, int, float)):
        return plain(seed)
    if isinstance(seed, (str, bytes, bytearray)):
        return plain(seed[:_LONGEST_TEXT])
    if isinstance(seed, (list, tuple)):
        # As a text: a list stands for several seeds.
        return str([_plain(element) for element in seed[:_MOST_ELEMENTS]])[:_LONGEST_TEXT]
    module = type(seed).__module__.partition(".")[0]
    if module != "numpy":  # what computes its text may wait for a device
        return f"{type(seed).__module__}.{type(seed).__qualname__}"
    if hasattr(seed, "tolist") and getattr(seed, "size", 1) <= _MOST_ELEMENTS:
        return _plain(seed.tolist())
    return " ".join(repr(seed).split())[:_LONGEST_TEXT]
