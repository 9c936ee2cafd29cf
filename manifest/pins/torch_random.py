"""Unseeded generators of PyTorch: the start state, `torch.seed()` and `Generator.seed()`.

The default generator starts from a random number that C++ draws when torch is loaded; a
`torch.Generator()` starts from a constant and needs nothing.
"""

from __future__ import annotations

import functools
import gc
from types import ModuleType
from typing import Any

from manifest.entropy import Entropy

KIND = "torch"
_SEED_BITS = 53  # what torch itself draws for devices; exact as a float too


def pin(torch: ModuleType, entropy: Entropy, *, from_start: bool) -> bool:
    """Let torch draw its seeds from `entropy`.

    Args:
        torch: The module, complete and not yet seen by the program.
        entropy: Where seeds come from.
        from_start: Whether the default generators start from `entropy` too; accelerators that
            are not initialised yet only have their seed queued.

    Returns:
        Whether `Generator.seed()` could be pinned; it depends on how CPython keeps types.
    """
    is_pinned = _replace_method(torch._C.Generator, "seed", entropy)
    if from_start:
        torch.manual_seed(entropy.bits(KIND, _SEED_BITS))
    return is_pinned


def _replace_method(generator: type, name: str, entropy: Entropy) -> bool:
    import ctypes  # torch has it already

    # `torch.seed()` ends here too. The type is static, so `setattr` is refused; a subclass in its
    # place would change `type(g)`. Its real dict is what the read-only proxy refers to.
    original = vars(generator)[name]
    (namespace,) = [d for d in gc.get_referents(vars(generator)) if isinstance(d, dict)]

    @functools.wraps(original)
    def seed(self: Any) -> int:
        value = entropy.bits(KIND, _SEED_BITS)
        self.manual_seed(value)
        return value

    namespace[name] = seed
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(generator))
    return getattr(generator, name) is seed
