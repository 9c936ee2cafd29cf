"""A loader with a generator of its own, whose workers are seeded."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from manifest.determinism import loader_kwargs, seed_everything, seed_worker
from manifest.errors import ArgumentInvalid


class Drawing(Dataset[Any]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> list[float]:
        return [index, random.random(), float(np.random.rand()), torch.rand(1).item()]


def epoch(**options: Any) -> list[Any]:
    fork: dict[str, Any] = {"multiprocessing_context": "fork"} if options.get("num_workers") else {}
    loader: DataLoader[Any] = DataLoader(
        Drawing(), batch_size=None, shuffle=True, **fork, **options
    )
    return list(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_order_and_workers_repeat_whatever_else_draws(workers: int) -> None:
    torch.manual_seed(1)
    plain = [epoch(num_workers=workers) for _ in range(2)]
    assert plain[0] != plain[1]
    seeded = []
    for _ in range(2):
        options = loader_kwargs(1)
        if not workers:  # samples are drawn here, from what all code shares
            seed_everything(1)
        else:
            torch.rand(7)
        seeded.append(epoch(num_workers=workers, **options))
    assert seeded[0] == seeded[1]


def test_another_seed_is_another_order() -> None:
    orders = [[sample[0] for sample in epoch(**loader_kwargs(seed))] for seed in (1, 2)]
    assert orders[0] != orders[1]


def test_a_worker_is_seeded_from_what_pytorch_seeded_it_with() -> None:
    drawn = []
    for seed in (5, 5, 5 + 2**40, 6):
        torch.manual_seed(seed)
        seed_worker(0)
        drawn.append((random.random(), float(np.random.rand())))
    assert drawn[0] == drawn[1] == drawn[2] != drawn[3]


def test_a_seed_that_not_every_library_takes_is_refused() -> None:
    with pytest.raises(ArgumentInvalid):
        loader_kwargs(2**32)
