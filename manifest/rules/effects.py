"""One fact in several places: a variable and the setting that it becomes, a list and its items."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from manifest.canonical import Json
from manifest.findings import UNKNOWN, Found, Judgement, Pair, catalogued
from manifest.models import Impact

_THREADS = "measured: four models on a CPU get other weights with 1 thread than with 2"


class Effect(NamedTuple):
    """A setting that a variable becomes."""

    section: str
    key: str
    is_whole: bool
    """Whether the variable becomes nothing else."""


_EFFECTS: Final = {
    "env.ATEN_CPU_CAPABILITY": Effect("settings", "torch.cpu.capability", is_whole=True),
    "env.MKL_NUM_THREADS": Effect("settings", "torch.num_threads", is_whole=False),
    "env.OMP_NUM_THREADS": Effect("settings", "torch.num_threads", is_whole=False),
    "env.PYTHONHASHSEED": Effect("seeds", "hash_seed", is_whole=True),
    "env.TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": Effect(
        "settings", "torch.float32_matmul_precision", is_whole=False
    ),
    "env.WORLD_SIZE": Effect("settings", "torch.distributed.world_size", is_whole=False),
}


def effect_of(key: str) -> Effect | None:
    """What a variable becomes, whether the program inherited it or set it itself."""
    return _EFFECTS.get(re.sub(r"^env_now\.", "env.", key))


def cause(found: Found, pair: Pair) -> Judgement | None:
    """A variable and the setting that it becomes are both kept, and said to be one thing."""
    effect = effect_of(found.key)
    if effect is None or None in pair.values(effect.section, effect.key):
        return None
    differs = pair.differs(effect.section, effect.key)
    said = f"{effect.key}, which differs too" if differs else f"{effect.key}, equal in both runs"
    if effect.is_whole:
        return Judgement("informational", f"takes effect as {said}")
    known = catalogued(found, pair) or UNKNOWN
    impact: Impact = "possible" if known.impact == "certain" and not differs else known.impact
    return Judgement(impact, f"takes effect as {said}. {known.reason}", known.source)


def hash_probe(found: Found, pair: Pair) -> Judgement | None:
    """The hash of a string shows the hash seed; alone it tells only of seeds nobody knows."""
    if found.key != "python.hash_probe":
        return None
    if pair.differs("seeds", "hash_seed"):
        return Judgement("informational", "follows from hash_seed, which differs too")
    known = catalogued(found, pair)
    if known is None or pair.values("seeds", "hash_seed") != ("random", "random"):
        return None
    unpinned = "Neither run pinned PYTHONHASHSEED; `manifest run` does."
    return known._replace(reason=f"{known.reason} {unpinned}")


def processors(found: Found, pair: Pair) -> Judgement | None:
    """The number of processors gives the number of threads, which is also recorded."""
    keys = ("cpu.count", "cpu.affinity_count", "process.affinity", "cpu.cores_per_socket")
    if found.key not in keys or not pair.agrees("settings", "torch.num_threads"):
        return None
    return Judgement("informational", "torch.num_threads is equal in both runs", _THREADS)


_Source = tuple[str, str]

_NUMBER_OF_THREADS: Final = ("settings", "torch.num_threads")
_OF_OPENMP: Final = ("environment", "env.OMP_NUM_THREADS")
_OF_MKL: Final = ("environment", "env.MKL_NUM_THREADS")
_OF_OPENBLAS: Final = ("environment", "env.OPENBLAS_NUM_THREADS")

_LINES: Final[Mapping[str, tuple[_Source, ...]]] = {
    "at::get_num_threads()": (_NUMBER_OF_THREADS,),
    "at::get_num_interop_threads()": (("settings", "torch.num_interop_threads"),),
    "omp_get_max_threads()": (_NUMBER_OF_THREADS, _OF_OPENMP),
    "mkl_get_max_threads()": (_NUMBER_OF_THREADS, _OF_MKL, _OF_OPENMP),
    "std::thread::hardware_concurrency()": (
        ("hardware", "cpu.count"),
        ("hardware", "cpu.affinity_count"),
    ),
    "OMP_NUM_THREADS": (_OF_OPENMP,),
    "MKL_NUM_THREADS": (_OF_MKL,),
    "CPU capability usage": (("settings", "torch.cpu.capability"),),
}
"""What lines of PyTorch's own descriptions repeat, by what stands before their last colon."""

_POOLS: Final[Mapping[str, tuple[_Source, ...]]] = {
    "openmp": (_NUMBER_OF_THREADS, _OF_OPENMP),
    "mkl": (_NUMBER_OF_THREADS, _OF_MKL, _OF_OPENMP),
    "openblas": (_OF_OPENBLAS, _OF_OPENMP),  # PyTorch's number does not reach it
}
"""What sets the number of threads of each kind of pool."""


def restated(found: Found, pair: Pair) -> Judgement | None:
    """A description of many things differs only in what is recorded, and judged, by itself."""
    if found.key in ("torch.parallel_info", "torch.config"):
        causes = _causes_of_lines(found, pair)
    elif found.key == "blas.threadpools":
        causes = _causes_of_pools(found, pair)
    elif found.key in ("inductor.nondefault", "dynamo.nondefault"):
        causes = _causes_of_options(found, pair)
    else:
        return None
    if causes is None:
        return None
    names = [key.removeprefix("env.") for _, key in sorted(causes, reverse=True)]
    verb = "differs" if len(names) == 1 else "differ"
    return Judgement("informational", f"follows from {' and '.join(names)}, which {verb} too")


def _causes_of_lines(found: Found, pair: Pair) -> set[_Source] | None:
    causes: set[_Source] = set()
    for before, after in _changed_elements(found) or [(None, None)]:
        if not isinstance(before, str) or not isinstance(after, str):
            return None
        names = {line.rpartition(":")[0].strip(" \t-") for line in (before, after)}
        sources = _differing(_LINES.get(names.pop(), ()), pair)
        if names or not sources:
            return None
        causes |= sources
    return causes


def _causes_of_pools(found: Found, pair: Pair) -> set[_Source] | None:
    causes: set[_Source] = set()
    for before, after in _changed_elements(found) or [(None, None)]:
        if not isinstance(before, dict) or not isinstance(after, dict):
            return None
        kind = before.get("internal_api")
        sources = _differing(_POOLS.get(kind, ()) if isinstance(kind, str) else (), pair)
        if {**before, "num_threads": 0} != {**after, "num_threads": 0} or not sources:
            return None
        causes |= sources
    return causes


def _causes_of_options(found: Found, pair: Pair) -> set[_Source] | None:
    if not all(isinstance(value, list) for value in found.values):
        return None
    before, after = ({str(item) for item in value} for value in found.values)
    names = {line.partition(" = ")[0] for line in before ^ after}
    causes = {("settings", name) for name in names}
    return causes if causes and all(pair.differs(*cause) for cause in causes) else None


def _changed_elements(found: Found) -> list[tuple[Json, Json]]:
    """The elements that differ of two lists of one length."""
    before, after = found.values
    if not isinstance(before, list) or not isinstance(after, list) or len(before) != len(after):
        return []
    return [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]


def _differing(sources: Iterable[_Source], pair: Pair) -> set[_Source]:
    return {source for source in sources if pair.differs(*source)}
