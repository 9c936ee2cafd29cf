"""What a loader needs so that its order and its workers repeat, as PyTorch's notes say."""

from __future__ import annotations

import sys
from typing import Any, SupportsIndex

from manifest.determinism.seeding import checked_seed


def loader_kwargs(seed: SupportsIndex) -> dict[str, Any]:
    """Arguments of a `DataLoader` that give it a generator of its own, and seed its workers.

    The order and the seeds of workers are then drawn from that generator alone: whatever else the
    program draws, or another loader, changes neither. What a sample draws still depends on the
    number of workers; `SeededSamples` takes that away, too.

    Args:
        seed: From 0 to 4294967295; another one for each loader.

    Raises:
        ArgumentInvalid: Not every library takes the seed.

    Example:
        >>> loader = DataLoader(data, shuffle=True, **loader_kwargs(1))  # doctest: +SKIP
    """
    import torch

    generator = torch.Generator()
    generator.manual_seed(checked_seed(seed))
    return {"generator": generator, "worker_init_fn": seed_worker}


def seed_worker(worker: int) -> None:  # noqa: ARG001 -- as loaders call it
    """Seed Python and NumPy in a worker of a loader from what PyTorch seeded it with.

    The `worker_init_fn` of PyTorch's notes. PyTorch 2 seeds both itself, Python with the same
    number and NumPy with one made of it: plain PyTorch is as good now, unless a library that the
    worker uses wants this.
    """
    import torch

    seed = torch.initial_seed() % 2**32
    for library in ("random", "numpy.random"):
        if library in sys.modules:
            sys.modules[library].seed(seed)
