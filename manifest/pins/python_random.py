"""Unseeded generators of the standard library: `random`, `random.Random()`, `random.seed()`."""

from __future__ import annotations

import functools
import os
from types import ModuleType
from typing import Any

from manifest.entropy import Entropy

KIND = "python.random"
_SEED_BITS = 256


def pin(random: ModuleType, entropy: Entropy, *, from_start: bool) -> None:
    """Let every `seed(None)` draw from `entropy`.

    Args:
        random: The module, complete and not yet seen by the program.
        entropy: Where seeds come from.
        from_start: Whether the module's own generator is to start from `entropy` too; when
            recording begins later its state is captured instead.
    """
    original = random.Random.seed

    @functools.wraps(original)
    def seed(self: Any, a: Any = None, version: int = 2) -> None:
        if a is None:
            a = entropy.bits(KIND, _SEED_BITS)
        original(self, a, version)

    random.Random.seed = seed
    shared = random._inst
    # The module holds a bound method of the old function.
    random.seed = shared.seed  # type: ignore[attr-defined]
    if from_start:
        shared.seed()
    # Registered behind the module's own hook, which seeds forked children from the system.
    os.register_at_fork(after_in_child=lambda: _seed_child(random, entropy))


def _seed_child(random: ModuleType, entropy: Entropy) -> None:
    random._inst.seed(entropy.bits(f"{KIND}.fork", _SEED_BITS))
