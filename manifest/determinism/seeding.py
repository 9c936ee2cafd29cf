"""One seed for every generator that all code shares: of Python, NumPy, PyTorch and each device."""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Final, SupportsIndex

from manifest import accelerators
from manifest.determinism.reports import Item, Report
from manifest.errors import ArgumentInvalid
from manifest.importing import is_imported, when_imported

GREATEST_SEED: Final = 2**32 - 1
"""What every library takes; NumPy takes no more."""

_latest = 0
_awaited: set[str] = set()


def seed_everything(seed: SupportsIndex) -> Report:
    """Seed the generators that all code shares, in each library that the program has imported.

    Nothing is imported, and no accelerator is started: a library that comes later is seeded when it
    is imported, and a device when it starts. Generators of the program's own have seeds of their
    own: `numpy.random.default_rng(seed)`, `torch.Generator().manual_seed(seed)`.

    Args:
        seed: From 0 to 4294967295, which every library takes.

    Returns:
        What was done for each library. For the order of sets of strings it is too late once Python
        runs: set ``PYTHONHASHSEED`` before that, or start the program with ``manifest run``.

    Raises:
        ArgumentInvalid: No library takes this for a seed, or not all do. Nothing was seeded.

    Example:
        >>> print(seed_everything(1))  # doctest: +SKIP
    """
    global _latest
    _latest = checked_seed(seed)
    items = [item for library in _SEEDING for item in _seed_now_or_later(library)]
    return Report(f"seed {_latest}", [*items, _hash_seed()])


def checked_seed(seed: SupportsIndex) -> int:
    """The seed as an integer.

    Raises:
        ArgumentInvalid: It is none that every library takes.
    """
    try:
        value = -1 if isinstance(seed, bool) else operator.index(seed)
    except TypeError:
        value = -1
    if not 0 <= value <= GREATEST_SEED:
        raise ArgumentInvalid(
            f"expected an integer from 0 to {GREATEST_SEED} as a seed, found {seed!r:.60}: "
            "NumPy takes no other. `seed % 2**32` makes one of any integer."
        )
    return value


def _seed_now_or_later(library: str) -> Iterator[Item]:
    if is_imported(library):
        yield from _SEEDING[library](sys.modules[library], _latest)
        return
    yield Item(library, "pending", "seeded when it is imported")
    if library not in _awaited:
        _awaited.add(library)
        when_imported(library, lambda module: _seed_imported(library, module))


def _seed_imported(library: str, module: ModuleType) -> None:
    _awaited.discard(library)
    for _ in _SEEDING[library](module, _latest):
        pass


def _seed_python(random: Any, seed: int) -> Iterator[Item]:
    random.seed(seed)
    yield Item("random", "set")


def _seed_numpy(random: Any, seed: int) -> Iterator[Item]:
    random.seed(seed)
    yield Item("numpy.random", "set")


def _seed_torch(torch: Any, seed: int) -> Iterator[Item]:
    torch.manual_seed(seed)
    found = torch.initial_seed()
    again = "" if found == seed else f"a replay gave {found}, which was recorded"
    yield Item("torch.cpu", "set", again)
    for name in accelerators.capture():
        if name.count(".") > 1:
            yield Item(name, "set")
        else:
            yield Item(name, "pending", "seeded when a device starts")


_SEEDING: Final[dict[str, Callable[[Any, int], Iterator[Item]]]] = {
    "random": _seed_python,
    "numpy.random": _seed_numpy,
    "torch": _seed_torch,
}


def _hash_seed() -> Item:
    from manifest.environment.variables import read_exec_environ

    if read_exec_environ(os.environ).get("PYTHONHASHSEED", "").isdigit():
        return Item("hash seed", "equal already")
    return Item("hash seed", "too late", "set PYTHONHASHSEED before Python starts")
