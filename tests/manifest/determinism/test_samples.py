"""What a sample draws depends on seed, epoch and index: not on workers, order or interruption."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from manifest.determinism import SeededSamples, sample_seed
from manifest.errors import ArgumentInvalid

# Four workers are more than there may be processors.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

SAMPLES, BATCH, EPOCHS = 12, 2, 2

Drawn = list[list[Any]]


class Drawing(Dataset[Any]):
    """Each sample is its index, and a number of each generator, drawn a number of times."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        for _ in range(index):
            random.random()
        drawn = [index, random.random(), float(np.random.rand()), torch.rand(1).item()]
        return torch.tensor(drawn, dtype=torch.float64)

    def __getitems__(self, indices: list[int]) -> list[torch.Tensor]:
        return [self[index] for index in indices]


class Plain(Drawing):
    """As a dataset is without the wrapper."""

    def set_epoch(self, epoch: int) -> None:
        pass


def loaded(data: Any, **options: Any) -> Drawn:
    """The batches of each epoch."""
    loader: DataLoader[Any] = DataLoader(data, batch_size=BATCH, **options)
    found = []
    for epoch in range(EPOCHS):
        data.set_epoch(epoch)
        found.append([batch.tolist() for batch in loader])
    return found


def by_workers(make: Any) -> list[Drawn]:
    found = []
    for workers in (0, 1, 2, 4):
        for lives_on in (False, True) if workers else (False,):
            random.seed(1), np.random.seed(1), torch.manual_seed(1)
            data = make()
            order = data.order() if isinstance(data, SeededSamples) else None
            found.append(
                loaded(
                    data,
                    num_workers=workers,
                    persistent_workers=lives_on,
                    sampler=order,
                    multiprocessing_context="fork" if workers else None,
                )
            )
    return found


def test_samples_are_equal_for_any_workers_whether_they_live_on_or_not() -> None:
    first, *others = by_workers(lambda: SeededSamples(Drawing(), seed=1))
    assert all(other == first for other in others)
    assert first[0] != first[1], "an epoch is not the next one"
    indices = [[sample[0] for batch in epoch for sample in batch] for epoch in first]
    assert indices[0] != indices[1]
    assert sorted(indices[0]) == sorted(indices[1]) == list(range(SAMPLES))


def test_without_it_they_are_not() -> None:
    first, *others = by_workers(Plain)
    assert not any(other == first for other in others)


def test_started_workers_of_their_own_load_the_same() -> None:
    options = {"num_workers": 1, "multiprocessing_context": "spawn", "persistent_workers": True}
    spawned = loaded(SeededSamples(Sums(), seed=1), **options)
    assert spawned == loaded(SeededSamples(Sums(), seed=1))


class Sums(Dataset[Any]):
    """Importable, as what is sent to a spawned worker must be."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> float:
        return random.random() + torch.rand(1).item()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_that_is_resumed_in_its_middle_goes_on_as_it_would_have(workers: int) -> None:
    data = SeededSamples(Drawing(), seed=3)
    whole = loaded(data, sampler=data.order())
    again = SeededSamples(Drawing(), seed=3)
    random.seed(99), torch.manual_seed(98)
    loader: DataLoader[Any] = DataLoader(
        again, batch_size=BATCH, sampler=again.order(), num_workers=workers
    )
    again.set_epoch(1, start=2 * BATCH)
    assert len(loader) == SAMPLES // BATCH - 2
    assert [batch.tolist() for batch in loader] == whole[1][2:]
    again.set_epoch(0)
    assert [batch.tolist() for batch in loader] == whole[0]


def states() -> tuple[Any, ...]:
    legacy: Any = np.random.get_state()
    _, key, *rest = legacy
    return random.getstate(), key.tobytes(), rest, torch.get_rng_state().tolist()


def test_the_generators_of_the_program_are_as_they_were_also_after_an_error() -> None:
    class Broken(Drawing):
        def __getitem__(self, index: int) -> torch.Tensor:
            super().__getitem__(index)
            raise LookupError(index)

    np.random.standard_normal(), torch.randn(1)  # half a pair is kept by each
    random.gauss(0, 1)
    before = states()
    SeededSamples(Drawing(), seed=1)[3]
    with pytest.raises(LookupError):
        SeededSamples(Broken(), seed=1)[3]
    assert states() == before


def test_no_two_samples_begin_alike() -> None:
    class First(Drawing):
        def __getitem__(self, index: int) -> Any:
            words = torch.randint(2**62, (2,)).tolist()
            return random.getrandbits(64), int(np.random.randint(2**62)), tuple(words)

    drawn = []
    for seed in (1, 2):
        data = SeededSamples(First(), seed=seed)
        for epoch in range(50):
            data.set_epoch(epoch)
            drawn += [data[index] for index in range(SAMPLES)]
    for values in zip(*drawn, strict=True):
        assert len(set(values)) == len(drawn)


def test_more_than_32_bits_tell_the_states_of_torch_apart() -> None:
    class State(Drawing):
        def __getitem__(self, index: int) -> Any:
            return torch.get_rng_state()

    data = SeededSamples(State(), seed=1)
    bits = torch.stack([data[index] for index in range(4)])[:, 24 : 24 + 8 * 624]
    words = bits.view(torch.int64).flatten().tolist()
    assert max(words) < 2**32
    assert len(set(words)) > 2400, "all words come from the hash"


def test_a_seed_of_a_sample_is_a_function_of_seed_epoch_and_index() -> None:
    seeds = [sample_seed(s, e, i) for s in (1, 11) for e in (1, 11) for i in (1, 11, "1", (1, 1))]
    assert len(set(seeds)) == len(seeds)
    assert sample_seed(1, 2, 3) == 335077800412775927731433910382296389250, "for ever"
    assert sample_seed(1, np.int64(2), torch.tensor(3)) == sample_seed(1, 2, 3)
    assert max(seeds).bit_length() > 100
    np.random.default_rng(seeds[0])


def test_indices_are_equal_whatever_holds_them() -> None:
    data = SeededSamples(Drawing(), seed=1)
    assert data[3].tolist() == data[torch.tensor(3)].tolist() == data[np.int64(3)].tolist()


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (lambda: SeededSamples(Stream(), seed=1), "expected a dataset with indices"),  # type: ignore[arg-type]
        (lambda: SeededSamples(Drawing(), seed=-1), "as a seed"),
        (lambda: SeededSamples(Drawing(), seed=1).set_epoch(-1), "expected an epoch"),
        (lambda: SeededSamples(Drawing(), seed=1).set_epoch(0, start=13), "from 0 to 12"),
        (lambda: SeededSamples({1.5: 1}, seed=1)[1.5], "found float"),
        (lambda: sample_seed(1, 1, object()), "found object"),
    ],
)
def test_what_cannot_be_is_refused(attempt: Any, said: str) -> None:
    with pytest.raises(ArgumentInvalid, match=said):
        attempt()
