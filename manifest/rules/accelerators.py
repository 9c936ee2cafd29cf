"""Differences of accelerators."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from manifest.canonical import Json
from manifest.findings import Found, Judgement, Pair, catalogued

_RANDOM_VALUES = "https://github.com/pytorch/pytorch/issues/194676"


class _Multiprocessor(NamedTuple):
    cores: int
    threads: int


_MULTIPROCESSORS: Final[Mapping[str, _Multiprocessor]] = {
    "7.0": _Multiprocessor(64, 2048),
    "7.5": _Multiprocessor(64, 1024),
    "8.0": _Multiprocessor(64, 2048),
    "8.6": _Multiprocessor(128, 1536),
    "8.9": _Multiprocessor(128, 1536),
    "9.0": _Multiprocessor(128, 2048),
    "10.0": _Multiprocessor(128, 2048),
    "12.0": _Multiprocessor(128, 1536),
}
"""Cores and resident threads of one multiprocessor, by compute capability."""


def multiprocessors(found: Found, pair: Pair) -> Judgement | None:
    """The number of multiprocessors chooses kernels, and which thread draws which number."""
    key = re.fullmatch(r"(gpu\.\d+)\.(cores|sm_count)", found.key)
    known = catalogued(found, pair)
    if key is None or known is None or not all(type(count) is int for count in found.values):
        return None
    capabilities = pair.values("hardware", f"{key[1]}.capability")
    fitting = [
        _threads(count, capability, are_cores=key[2] == "cores")
        for count, capability in zip(found.values, capabilities, strict=True)
    ]
    counted = [count for count in fitting if count is not None]
    size = f"more than {min(counted)} elements" if len(counted) == 2 else "many elements"
    reason = f"{known.reason} CUDA also draws other random numbers for a tensor of {size}."
    return Judgement("certain", reason, _RANDOM_VALUES)


def _threads(count: int, capability: Json, *, are_cores: bool) -> int | None:
    """How many threads run at once: up to as many elements, each has a thread of its own."""
    one = _MULTIPROCESSORS.get(capability) if isinstance(capability, str) else None
    if one is None:
        return None
    return (count // one.cores if are_cores else count) * one.threads
