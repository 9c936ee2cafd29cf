"""Differences of libraries."""

from __future__ import annotations

from manifest.findings import Found, Judgement, Pair

_RANDOMNESS = "https://docs.pytorch.org/docs/stable/notes/randomness.html"


def torch_release(found: Found, _: Pair) -> Judgement | None:
    """Builds and patch releases of one PyTorch differ less than two releases do."""
    names = (("packages", "torch"), ("settings", "torch.version"))
    if (found.section, found.key) not in names or not all(type(v) is str for v in found.values):
        return None
    before, after = (version.split("+")[0].split(".")[:2] for version in found.values)
    if before != after:
        return Judgement("certain", "kernels and defaults change between releases", _RANDOMNESS)
    return Judgement("possible", "another build or patch of the same release", _RANDOMNESS)


def package(found: Found, pair: Pair) -> Judgement | None:
    """What is installed and never imported computes nothing."""
    imported = pair.values("code", "imported")
    if not all(isinstance(names, list) and found.key not in names for names in imported):
        return None
    return Judgement("informational", "installed, but neither run imported it")
