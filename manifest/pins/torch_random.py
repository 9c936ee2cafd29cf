"""Unseeded generators of PyTorch: the start state, `torch.seed()` and `Generator.seed()`.

The default generator starts from a random number that C++ draws when torch is loaded; a
`torch.Generator()` starts from a constant and needs nothing.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from manifest.entropy import Entropy
from manifest.methods import replace_method

KIND = "torch"
_SEED_BITS = 53  # what torch itself draws for devices; exact as a float too


def pin(torch: ModuleType, entropy: Entropy, *, from_start: bool) -> None:
    """Let torch draw its seeds from `entropy`.

    Args:
        torch: The module, complete and not yet seen by the program.
        entropy: Where seeds come from.
        from_start: Whether the default generators start from `entropy` too; accelerators that
            are not initialised yet only have their seed queued.

    Raises:
        TypeError: `Generator.seed()` cannot be pinned on this interpreter.
    """
    if from_start:
        torch.manual_seed(entropy.bits(KIND, _SEED_BITS))
    original = vars(torch._C.Generator)["seed"]

    @functools.wraps(original)
    def seed(self: Any) -> int:
        value = entropy.bits(KIND, _SEED_BITS)
        self.manual_seed(value)
        return value

    # `torch.seed()` ends here too.
    replace_method(torch._C.Generator, "seed", seed)
