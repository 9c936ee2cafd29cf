"""Generators of the program's own, which it names to the run.

They are recorded as they are when they are named; a replay puts them back at that same moment.
Generators that a program does not name are not looked for: a search through all objects would hold
the program up, and let objects end in a thread that is not theirs. Those that are made while a run
is recorded are only noticed; see `noticing`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from manifest import states
from manifest.canonical import Json, plain
from manifest.errors import StateNotRestorable
from manifest.generators import is_shared
from manifest.restoring import RestoredItem

_MOST_GENERATORS = 256
_MOST_SPAWNED = 100_000
_LONGEST_NAME = 200

_OF_SEED = ("seed.entropy", "seed.spawn_key", "seed.pool_size")


class Listener(Protocol):
    """Whoever writes down what is learnt."""

    def section(self, name: str, values: dict[str, Json]) -> None:
        """Record facts of one section."""

    def note(self, where: str, what: object) -> None:
        """Record that something could not be done."""

    def restored(self, items: Iterable[RestoredItem]) -> None:
        """Record what came of putting something back."""


class Tracking:
    """The generators that the program has named to one run."""

    def __init__(
        self,
        listener: Listener,
        recorded: Callable[[], Mapping[str, Any]] = dict,
        *,
        on_tracked: Callable[[], None] = lambda: None,
    ) -> None:
        self.recorded = recorded
        """The generators of the run that is replayed; those that are named again are put back."""
        self._listener = listener
        self._on_tracked = on_tracked
        self._tracked: dict[str, Any] = {}

    def track(self, name: str, generator: Any) -> None:
        """Follow a generator from now on; what is none becomes a note, as all that fails does."""
        if any(generator is known for known in self._tracked.values()):
            return
        if len(self._tracked) >= _MOST_GENERATORS:
            self._listener.note("generators", f"{name}: no more than {_MOST_GENERATORS} are kept")
            return
        try:
            key = self._unique(str(name)[:_LONGEST_NAME])
            entry = capture_generator(generator)
            self._tracked[key] = generator
            self._listener.section("generators", {key: entry})
            self._put_back(key, generator)
            self._on_tracked()
        except Exception as error:
            self._listener.note(f"generators.{str(name)[:_LONGEST_NAME]}", error)

    def put_back(self, recorded: Mapping[str, Any]) -> list[RestoredItem]:
        """Put back what is tracked already, and the rest when it is tracked."""
        self.recorded = lambda: recorded
        return [
            self._restored(key, generator, recorded[key])
            for key, generator in self._tracked.items()
            if key in recorded
        ]

    def generators(self) -> dict[str, Any]:
        """What is tracked, by name."""
        return self._tracked

    def finish(self) -> None:
        """Record the states in which the generators were left, as digests, and let go of them."""
        tracked, self._tracked = self._tracked, {}
        for name, generator in tracked.items():
            try:
                digest = states.digest_of(generator)
            except Exception as error:
                self._listener.note(f"generators.{name}", error)
            else:
                self._listener.section("generators", {name: {"digest": digest}})

    def items(self) -> list[tuple[str, Any]]:
        """By name, what is tracked."""
        return list(self._tracked.items())

    def ids(self) -> set[int]:
        """By `id`, what is tracked."""
        return {id(generator) for generator in self._tracked.values()}

    def _unique(self, name: str) -> str:
        if name not in self._tracked and not is_shared(name):
            return name
        # A program that names one in each of several rounds does so in the same order again.
        numbered = (f"{name}#{ordinal}" for ordinal in itertools.count(1))
        return next(key for key in numbered if key not in self._tracked)

    def _put_back(self, key: str, generator: Any) -> None:
        recorded = self.recorded()
        if key not in recorded:
            return
        item = self._restored(key, generator, recorded[key])
        self._listener.restored([item])
        if item.outcome != "equal already":
            self._listener.section("generators", {key: capture_generator(generator)})

    def _restored(self, key: str, generator: Any, entry: Any) -> RestoredItem:
        try:
            return restore_generator(key, generator, entry)
        except Exception as error:
            return RestoredItem(key, "failed", str(error))


def capture_generator(generator: Any) -> dict[str, Json]:
    """What a manifest keeps of a generator.

    Raises:
        StateNotRestorable: It is of no kind whose state is known here.
    """
    state = states.encoded(states.state_of(generator))
    entry: dict[str, Json] = {"kind": states.kind_of(generator), "state": state}
    bits = states.bits_of(generator)
    if bits is not None:
        entry |= {"bit_generator": type(bits).__name__, **_seed_sequence(bits)}
    if entry["kind"] == "torch.Generator":
        entry["device"] = str(generator.device)
    return entry


def restore_generator(name: str, generator: Any, entry: Any) -> RestoredItem:
    """Put a recorded state back.

    Returns:
        What came of its state, and whether it will spawn others than it did.

    Raises:
        StateNotRestorable: The entry is of another kind or does not have its form; nothing was
            set.
    """
    data = states.decoded(name, entry)
    found = capture_generator(generator)
    for field in ("kind", "bit_generator", "device"):
        if entry.get(field) != found.get(field):
            raise StateNotRestorable(
                f"generator '{name}' was recorded with {field} {str(entry.get(field))[:80]!r}, "
                f"here it has {found.get(field)!r}"
            )
    put_back = states.setter_of(name, generator, data)
    is_equal = states.decoded(name, found) == data
    if not is_equal:
        put_back()
    gap = _spawn_as_often(states.bits_of(generator), found, entry)
    if states.state_of(generator) != data:
        return RestoredItem(name, "failed", "it was set, but reads otherwise")
    return RestoredItem(name, "equal already" if is_equal else "restored", gap)


def _seed_sequence(bits: Any) -> dict[str, Json]:
    # What `spawn()` gives depends on these alone, and leaves the state as it is.
    sequence: Any = getattr(bits, "seed_seq", None)
    children = getattr(sequence, "n_children_spawned", None)
    if children is None:
        return {}
    return {
        "seed.entropy": plain(sequence.entropy),
        "seed.spawn_key": plain(sequence.spawn_key),
        "seed.pool_size": sequence.pool_size,
        "seed.children": children,
    }


def _spawn_as_often(bits: Any, found: Mapping[str, Json], entry: Mapping[str, Json]) -> str:
    recorded = entry.get("seed.children")
    if bits is None or type(recorded) is not int or "seed.children" not in found:
        return ""
    if any(found[key] != entry.get(key) for key in found if key in _OF_SEED):
        return "what it spawns comes from another seed"  # which nothing can change
    missing = recorded - found["seed.children"]
    if not 0 <= missing <= _MOST_SPAWNED:
        return f"it has spawned {found['seed.children']} generators instead of {recorded}"
    if missing:
        bits.seed_seq.spawn(missing)
    return ""
