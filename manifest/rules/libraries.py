"""Differences of libraries."""

from __future__ import annotations

import re
from typing import Final

from manifest.canonical import Json
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


def origin(found: Found, pair: Pair) -> Judgement | None:
    """A package of one version may come from elsewhere, or from a folder in which it changes."""
    if found.path[0] != "packages.origins" or len(found.path) < 2:
        return None
    name = found.path[1]
    if _was_imported_by_neither(name, pair):
        return Judgement("informational", f"neither run imported {name}")
    if pair.maps("code", "installed") is not None and _is_known(name, pair):
        same = not pair.differs("code", f"installed.{name}")
        told = "is the same" if same else "is judged by itself"
        return Judgement("informational", f"all of {name} that the runs imported {told}")
    if len(found.path) < 3 or not found.is_in_both:
        return Judgement("possible", f"{name} came from elsewhere in one of the runs")
    return _of_its_source(name, found.path[2], pair)


def _of_its_source(name: str, fact: str, pair: Pair) -> Judgement | None:
    origins = [_map(each.get(name)) for each in pair.maps("environment", "packages.origins") or ()]
    trees = [each.get("tree") for each in origins]
    if fact != "tree" and None not in trees and trees[0] == trees[1]:
        return Judgement("informational", f"every file of {name} that git knows is the same")
    has_moved = len({str(each.get("commit")) for each in origins}) > 1
    match fact:
        case "commit":
            return Judgement("possible", f"{name} ran from another commit")
        case "dirty":
            return Judgement(
                "possible", f"only one of the runs had changed {name} since its commit"
            )
        case "tree" if has_moved:
            return Judgement("informational", f"follows from the commit of {name}, judged apart")
        case "tree":
            return Judgement("possible", f"{name} had other uncommitted changes")
    return None


def _is_known(name: str, pair: Pair) -> bool:
    installed = pair.maps("code", "installed") or ()
    return bool(installed) and all(_map(each.get(name)) for each in installed)


def _map(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def package(found: Found, pair: Pair) -> Judgement | None:
    """What is installed and never imported computes nothing."""
    if not _was_imported_by_neither(found.key, pair):
        return None
    return Judgement("informational", "installed, but neither run imported it")


def _was_imported_by_neither(name: str, pair: Pair) -> bool:
    imported = pair.values("code", "imported")
    return all(isinstance(names, list) and name not in names for names in imported)
