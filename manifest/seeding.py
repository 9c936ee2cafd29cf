"""Seeds that the program gives: which, to which library, at which place, in which order.

Noted where a library takes them, under the names that a program may have bound long before: its
functions stay the objects that they are. One exception is `numpy.random.default_rng`, a function
that nothing else goes through. Seeds that libraries give each other are none of the program's.

A seed may come from the clock, the process id or the operating system. So a replay gives the
recorded one again where the program has another at the same place, the same number of times on.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections import deque
from collections.abc import Callable
from os.path import abspath
from types import FrameType, ModuleType
from typing import Any, NamedTuple, Protocol, TypeVar

from manifest.canonical import Json
from manifest.methods import replace_method
from manifest.places import first_outside, module_of, package_of, shown_place
from manifest.restoring import RestoredItem, RestoreOutcome
from manifest.seedforms import decoded, exact, in_words, shown

_MOST_PLACES = 64
_MOST_SEEDS = 8
MOST_SEEDS_IN_ORDER = 500
"""What a replay can give again, of one place in one process."""

_LIBRARIES = ("manifest", "numpy", "random", "torch")
_PASSING_ON = (
    "manifest.determinism.seeding",
    "manifest.recording",
    "manifest.importing",
    "importlib",
)
"""What gives a seed on behalf of the program, whose own it is."""

_OF_CONSTRUCTOR = ("random", "manifest.noticing")  # of a `Random`
_SEEDING_OF_DEVICES = ("manual_seed", "manual_seed_all")

_ENDING_IN_METHOD = {"torch.random": "torch.manual_seed", "torch.mps": "torch.mps.manual_seed"}
"""Functions that end in the method of a generator, by their module."""

_OF_SEEDED = ("random_raw", "bit_generator", "_bit_generator")

_Place = tuple[str, int, str]
_R = TypeVar("_R")


class Listener(Protocol):
    """Whoever writes down what is learnt, and knows what was learnt before."""

    def seed_given(self, place: str, seed: Json, exact: Json) -> None:
        """Record a seed, as people read it and, unless `exact` is None, as it is given again."""

    def recorded_seed(self, place: str, ordinal: int, path: str) -> RecordedSeed | None:
        """The seed that a replay finds recorded; None if this is no replay.

        Args:
            place: Where a seed is given now.
            ordinal: How many were given there before.
            path: The file of the place.
        """

    def restored(self, items: list[RestoredItem]) -> None:
        """Record what came of giving a seed again."""


class RecordedSeed(NamedTuple):
    """A seed that was given at a place once; see `seedforms`."""

    shown: Json = None
    exact: Json = None
    reason: str = ""
    """Why it is not given again, if it is another."""


class Seeds:
    """The seeds that the program has given in this process, the last few of each place."""

    def __init__(self) -> None:
        self._root = ""
        self._given: dict[_Place, _Given] = {}
        self._is_full = False
        self._listener: Listener | None = None

    def begin(self, root: str, listener: Listener) -> None:
        """Note seeds for one run.

        Args:
            root: The folder of the project, to which places are relative.
            listener: Told each seed.
        """
        self._root = root
        self._listener = listener
        self.begin_in_fork()

    def begin_in_fork(self) -> None:
        """Count anew, as every process does."""
        self._given = {}
        self._is_full = False

    def end(self) -> None:
        """Note no more."""
        self._listener = None

    def give(
        self, function: str, seed: object, frame: FrameType | None, seeding: Callable[[Any], _R]
    ) -> _R:
        """Seed with what the program gives at `frame`, or with what it gave there once.

        Args:
            function: What it calls.
            seed: What it gives.
            frame: Where.
            seeding: The function itself; what it raises is the program's.
        """
        given = self._at(function, frame)
        if given is None:
            return seeding(seed)
        again = self._to_give_again(given, seed)
        if again is not None:
            try:
                result = seeding(again.seed)
            except Exception as error:  # a recorded seed that this library does not take
                self._say(given, "failed", f"the recorded one is not taken: {error}")
            else:
                self._note(given, again.seed)
                self._say(given, "restored", again.reason)
                return result
        result = seeding(seed)
        self._note(given, seed)
        return result

    def foreseen(self, function: str, seed: object, frame: FrameType | None) -> object:
        """What `give` is about to seed with at this place."""
        given = self._at(function, frame)
        again = None if given is None else self._to_give_again(given, seed, is_silent=True)
        return seed if again is None else again.seed

    def calls(self) -> dict[str, Json]:
        """What was given, by place: one value, or a list of the last that were not the same."""
        return {
            given.place: given.seeds[0] if len(given.seeds) == 1 else list(given.seeds)
            for given in list(self._given.values())
            if given.seeds
        }

    def _at(self, function: str, frame: FrameType | None) -> _Given | None:
        try:
            if self._listener is None or frame is None or package_of(frame) in _LIBRARIES:
                return None
            place = (frame.f_code.co_filename, frame.f_lineno, function)
            return self._given.get(place) or self._new(place)
        except Exception:  # seeding must not fail for being watched
            return None

    def _new(self, place: _Place) -> _Given | None:
        # Named at once: a program may change its folder.
        given = _Given(f"{shown_place(*place[:2], self._root)} {place[2]}", abspath(place[0]))
        if len(self._given) < _MOST_PLACES:
            self._given[place] = given
            return given
        if not self._is_full and self._listener is not None:
            self._is_full = True
            if self._listener.recorded_seed(given.place, 0, given.path) is not None:
                self._say(
                    given, "skipped", f"seeds of more than {_MOST_PLACES} places are not kept"
                )
        return None

    def _note(self, given: _Given, seed: object) -> None:
        try:
            value = shown(seed)
            if not given.seeds or value != given.seeds[-1]:
                given.seeds.append(value)
            given.count += 1
            if self._listener is not None and given.count <= MOST_SEEDS_IN_ORDER:
                self._listener.seed_given(given.place, value, exact(seed))
        except Exception:
            pass

    def _to_give_again(
        self, given: _Given, seed: object, *, is_silent: bool = False
    ) -> _Again | None:
        try:
            # The order of threads is not repeated: another thread's seed may be recorded next.
            if self._listener is None or threading.current_thread() is not threading.main_thread():
                return None
            found = self._listener.recorded_seed(given.place, given.count, given.path)
            if found is None:
                return None
            present = found._replace(shown=shown(seed), exact=exact(seed))
            if present == found:
                return None
            reason, recorded = found.reason, decoded(found.exact)
            now, then = in_words(present.shown), in_words(found.shown)
            if not reason:
                if recorded is not None and type(recorded) is type(decoded(present.exact)):
                    return _Again(recorded, f"was given {now}, the recorded {then} was given again")
                reason = f"{then} was recorded, which cannot be given for {now}"
            if not is_silent and not given.is_told:
                given.is_told = True
                self._say(given, "skipped", reason)
        except Exception as error:  # of a manifest that was made up
            if not is_silent and not given.is_told:
                given.is_told = True
                self._say(given, "failed", f"{type(error).__name__}: {error}")
        return None

    def _say(self, given: _Given, outcome: RestoreOutcome, reason: str) -> None:
        if self._listener is not None:
            try:
                self._listener.restored([RestoredItem(given.place, outcome, reason)])
            except Exception:
                pass


class _Given:
    """What was given at one place."""

    def __init__(self, place: str, path: str) -> None:
        self.place = place
        self.path = path
        self.count = 0
        self.seeds: deque[Json] = deque(maxlen=_MOST_SEEDS)
        self.is_told = False


class _Again(NamedTuple):
    seed: Any
    reason: str


def watch_random(seeds: Seeds, random: Any) -> None:
    """Watch what `random.seed`, `Random.seed` and `Random` are given."""
    original = random.Random.seed
    shared: Any = random._inst

    @functools.wraps(original)
    def seed(self: Any, a: Any = None, version: int = 2) -> None:
        if a is None:
            original(self, a, version)
            return
        function = "random.seed" if self is shared else "random.Random"
        frame = first_outside(sys._getframe(1), (*_OF_CONSTRUCTOR, *_PASSING_ON))
        seeds.give(function, a, frame, lambda given: original(self, given, version))

    random.Random.seed = seed
    if getattr(random.seed, "__self__", None) is shared:
        # The module holds a bound method of the old function.
        random.seed = random._inst.seed


def watch_legacy_numpy(seeds: Seeds, bit_generator: ModuleType) -> None:
    """Watch what `numpy.random.seed` and `RandomState` are given."""
    twister = bit_generator.MT19937
    original = vars(twister)["_legacy_seeding"]

    @functools.wraps(original)
    def _legacy_seeding(self: Any, seed: Any) -> Any:
        if seed is None:
            return original(self, seed)
        frame = first_outside(sys._getframe(1), ("numpy", *_PASSING_ON))
        return seeds.give(_numpy_function(self), seed, frame, lambda given: original(self, given))

    replace_method(twister, "_legacy_seeding", _legacy_seeding)


def _numpy_function(bits: Any) -> str:
    shared = getattr(sys.modules.get("numpy.random.mtrand"), "_rand", None)
    is_shared = getattr(shared, "_bit_generator", None) is bits
    return "numpy.random.seed" if is_shared else "numpy.random.RandomState"


def watch_numpy(seeds: Seeds, generator: ModuleType) -> None:
    """Watch what `default_rng` is given."""
    original = generator.default_rng

    @functools.wraps(original)
    def default_rng(seed: Any = None) -> Any:
        # A generator that is passed through, or given its bits, was seeded elsewhere.
        if seed is None or any(hasattr(type(seed), name) for name in _OF_SEEDED):
            return original(seed)
        frame = first_outside(sys._getframe(1), ("numpy",))
        return seeds.give("numpy.random.default_rng", seed, frame, original)

    generator.default_rng = default_rng  # type: ignore[attr-defined]
    package: Any = sys.modules.get("numpy.random")
    if getattr(package, "default_rng", None) is original:
        package.default_rng = default_rng


def watch_torch(seeds: Seeds, torch: ModuleType) -> None:
    """Watch what `manual_seed` of `torch` and of its generators is given."""
    original = vars(torch._C.Generator)["manual_seed"]

    @functools.wraps(original)
    def manual_seed(self: Any, seed: Any, /) -> Any:
        function, frame = _torch_call(sys._getframe(1))
        return seeds.give(function, seed, frame, lambda given: original(self, given))

    replace_method(torch._C.Generator, "manual_seed", manual_seed)


def _torch_call(frame: FrameType | None) -> tuple[str, FrameType | None]:
    # The function ends in the method, with the compiler's fences around it once that is loaded.
    function = "torch.Generator.manual_seed"
    while frame is not None:
        module = module_of(frame)
        if module in _ENDING_IN_METHOD:
            function = _ENDING_IN_METHOD[module]
        elif not module.startswith(("torch._compile", "torch._dynamo")):
            break
        frame = frame.f_back
    return function, first_outside(frame, _PASSING_ON)


def watch_device(seeds: Seeds, random: ModuleType) -> None:
    """Watch what `manual_seed` and `manual_seed_all` of a kind of device are given."""
    original = getattr(random, "_lazy_call", None)
    if original is None:  # an older PyTorch, which seeds no device of this kind
        return
    backend = random.__name__.removesuffix(".random")

    @functools.wraps(original)
    def _lazy_call(callable: Any, **kwargs: Any) -> Any:  # noqa: A002 -- as it is named there
        frame = sys._getframe(1)
        function, seed = frame.f_code.co_name, frame.f_locals.get("seed")
        if function not in _SEEDING_OF_DEVICES or "seed" not in callable.__code__.co_freevars:
            return original(callable, **kwargs)

        def seeding(given: Any) -> Any:
            if given is not seed:
                # What is queued until a device starts has its seed nowhere else.
                cell = callable.__code__.co_freevars.index("seed")
                callable.__closure__[cell].cell_contents = given
            return original(callable, **kwargs)

        caller, outside = _torch_call(frame.f_back)
        if caller == "torch.manual_seed":  # which seeds devices first, and is noted as such
            return seeding(seeds.foreseen(caller, seed, outside))
        return seeds.give(f"{backend}.{function}", seed, frame.f_back, seeding)

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
