"""Differences of libraries."""

from __future__ import annotations

import re
from typing import Final

from manifest.findings import Found, Judgement, Pair, catalogued

_RANDOMNESS = "https://docs.pytorch.org/docs/stable/notes/randomness.html"
_NATIVE = "torch/_native/registry.py (torch 2.13)"
_HOLD_KERNELS: Final = re.compile("(pytorch-)?triton.*|nvidia-cutlass.*|helion|opt-einsum")
_REPLACED = (
    "PyTorch replaces some CUDA kernels by ones written in it, and torch.compile needs it on GPUs."
)


def torch_release(found: Found, _: Pair) -> Judgement | None:
    """Builds and patch releases of one PyTorch differ less than two releases do."""
    names = (("packages", "torch"), ("settings", "torch.version"))
    if (found.section, found.key) not in names or not all(type(v) is str for v in found.values):
        return None
    before, after = (version.split("+")[0].split(".")[:2] for version in found.values)
    if before != after:
        return Judgement("certain", "kernels and defaults change between releases", _RANDOMNESS)
    return Judgement("possible", "another build or patch of the same release", _RANDOMNESS)


def kernels(found: Found, pair: Pair) -> Judgement | None:
    """PyTorch takes kernels from some packages wherever they are installed, unasked."""
    if not _HOLD_KERNELS.fullmatch(found.key):
        return None
    known = catalogued(found, pair)
    if found.is_in_both or known is None or found.key == "opt-einsum":
        return known
    return Judgement("certain", f"only one of the runs had it. {_REPLACED}", _NATIVE)


def package(found: Found, pair: Pair) -> Judgement | None:
    """What is installed and never imported computes nothing."""
    imported = pair.values("code", "imported")
    if not all(isinstance(names, list) and found.key not in names for names in imported):
        return None
    return Judgement("informational", "installed, but neither run imported it")
