"""Unseeded generators of NumPy: everything that would make a `SeedSequence` of its own.

`default_rng()`, bit generators, `RandomState()`, `numpy.random.seed()` and the legacy global state
at import all take their entropy from one function, ``randbits`` in ``numpy.random.bit_generator``.
"""

from __future__ import annotations

from types import ModuleType

from manifest.entropy import Entropy

KIND = "numpy.random"


def pin(bit_generator: ModuleType, entropy: Entropy) -> None:
    """Let every unseeded `SeedSequence` draw from `entropy`."""

    def randbits(k: int) -> int:
        return entropy.bits(KIND, k)

    bit_generator.randbits = randbits  # type: ignore[attr-defined]
