"""Randomness of each sample from a counter: seed, epoch and index decide it, and nothing else.

What a sample draws usually depends on all that was drawn before it in the same process: on the
number of workers, on how far an epoch has come, on what was resumed. Here each sample begins from a
state of its own, which a hash of the counter gives.
"""

from __future__ import annotations

import operator
import random
import struct
import sys
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from hashlib import shake_128
from typing import Any, Final, Protocol, SupportsIndex

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Sampler

from manifest.determinism.seeding import checked_seed
from manifest.errors import ArgumentInvalid

_BYTES_EACH: Final = 32
_WORDS: Final = 624  # of the Mersenne twister
_FIRST_WORD: Final = 3  # in the state of a generator of PyTorch, in steps of eight bytes


class _Indexed(Protocol):
    def __getitem__(self, index: Any, /) -> Any: ...
    def __len__(self) -> int: ...


def sample_seed(seed: SupportsIndex, epoch: SupportsIndex, index: Any) -> int:
    """A seed of 128 bits for one sample in one epoch, for generators of your own.

    Args:
        seed: From 0 to 4294967295.
        epoch: Any integer.
        index: An integer or text, or a tuple of them.

    Raises:
        ArgumentInvalid: Not every library takes the seed, or nothing is made of such an index.

    Example:
        >>> rng = np.random.default_rng(sample_seed(1, epoch, index))  # doctest: +SKIP
    """
    counter = _counter("seed", checked_seed(seed), epoch, index)
    return int.from_bytes(shake_128(counter).digest(16), "little")


class SeededSamples(Dataset[Any]):
    """A dataset each of whose samples draws the same in an epoch, whoever loads it, and when.

    While a sample is made, `random`, `numpy.random` and the CPU generator of PyTorch begin from a
    hash of (seed, epoch, index); afterwards they are as they were. So the number of workers does
    not matter, nor whether they live on, nor where an epoch is resumed. Generators that the dataset
    holds itself are left alone: give them `sample_seed`.

    One thing remains between workers and none: a worker computes with one thread.

    Args:
        dataset: With indices; not an iterable one.
        seed: From 0 to 4294967295.

    Raises:
        ArgumentInvalid: The dataset has no indices, or not every library takes the seed.

    Example:
        >>> data = SeededSamples(dataset, seed=1)  # doctest: +SKIP
        >>> loader = DataLoader(data, sampler=data.order(), num_workers=4)  # doctest: +SKIP
        >>> for epoch in range(3):  # doctest: +SKIP
        ...     data.set_epoch(epoch)
        ...     for batch in loader: ...
    """

    def __init__(self, dataset: _Indexed, seed: SupportsIndex) -> None:
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
            raise ArgumentInvalid(
                f"expected a dataset with indices, found {type(dataset).__name__}: "
                "what an iterable one gives depends on who reads it. Draw from `sample_seed` in it."
            )
        self.dataset = dataset
        self.seed = checked_seed(seed)
        # In memory that workers share: those that live on learn of a new epoch by it.
        self._epoch: Tensor = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]  # of torch
        self._start = 0

    @property
    def epoch(self) -> int:
        """The epoch that was set last, here or in the process that this worker belongs to."""
        return int(self._epoch)

    @property
    def start(self) -> int:
        """How many samples at the beginning of the epoch its order leaves out."""
        return self._start

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Say which epoch comes, before the loader is iterated; else it repeats the last one.

        Args:
            epoch: Decides what samples draw, and their order.
            start: How many samples of it to leave out, to go on in the middle: batches done times
                the size of a batch. Only `order()` knows of it.

        Raises:
            ArgumentInvalid: One of them is no such number.
        """
        if operator.index(epoch) < 0 or not 0 <= operator.index(start) <= len(self):
            raise ArgumentInvalid(
                f"expected an epoch from 0 on and a start from 0 to {len(self)}, "
                f"found {epoch!r} and {start!r}"
            )
        self._epoch.fill_(epoch)
        self._start = start

    def order(self, *, shuffle: bool = True) -> Order:
        """A sampler whose order only seed and epoch decide, for the loader of this dataset."""
        return Order(self, shuffle=shuffle)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        with _drawing_from(_counter("sample", self.seed, self.epoch, index)):
            return self.dataset[index]


class Order(Sampler[int], Sized):
    """The indices of an epoch of `SeededSamples`, from its start on."""

    def __init__(self, samples: SeededSamples, *, shuffle: bool) -> None:
        self._samples = samples
        self._is_shuffled = shuffle

    def __iter__(self) -> Iterator[int]:
        samples, number = self._samples, len(self._samples.dataset)
        order = list(range(number))
        if self._is_shuffled:
            generator = torch.Generator()
            counter = _counter("order", samples.seed, samples.epoch, 0)
            generator.set_state(_torch_state(shake_128(counter).digest(4 * _WORDS)))
            order = torch.randperm(number, generator=generator).tolist()
        return iter(order[samples.start :])

    def __len__(self) -> int:
        return len(self._samples.dataset) - self._samples.start


def _counter(purpose: str, seed: int, epoch: SupportsIndex, index: Any) -> bytes:
    return f"{purpose} {seed} {operator.index(epoch)} {_plain(index)!r}".encode()


def _plain(index: Any) -> Any:
    if isinstance(index, str):
        return index
    if isinstance(index, tuple):
        return tuple(map(_plain, index))
    try:
        return operator.index(index)
    except TypeError:
        kind = type(index).__name__
        raise ArgumentInvalid(f"expected an index of integers or texts, found {kind}") from None


@contextmanager
def _drawing_from(counter: bytes) -> Iterator[None]:
    """Let what is drawn inside begin from a hash of the counter, and leave no trace of it."""
    digest = shake_128(counter).digest(2 * _BYTES_EACH + 4 * _WORDS)
    numpy = _numpy_random()
    python_before, torch_before = random.getstate(), torch.get_rng_state()
    numpy_before = None if numpy is None else numpy.get_state(legacy=False)
    try:
        random.seed(int.from_bytes(digest[:_BYTES_EACH], "little"))
        if numpy is not None:
            numpy.seed(struct.unpack("<8I", digest[_BYTES_EACH : 2 * _BYTES_EACH]))
        torch.set_rng_state(_torch_state(digest[2 * _BYTES_EACH :]))
        yield
    finally:
        random.setstate(python_before)
        torch.set_rng_state(torch_before)
        if numpy is not None:
            numpy.set_state(numpy_before)


def _numpy_random() -> Any:
    # An attribute that NumPy imports when it is asked for: in the first sample, it would be late.
    return getattr(sys.modules.get("numpy"), "random", None)


def _torch_state(words: bytes) -> Tensor:
    # Of a seed, PyTorch's generator for the CPU takes 32 bits: among 100,000 samples some would be
    # alike. So all words of its state come from the hash.
    state = torch.Generator().get_state()
    values = torch.frombuffer(bytearray(words), dtype=torch.int32).to(torch.int64)
    state.view(torch.int64)[_FIRST_WORD : _FIRST_WORD + _WORDS] = values & 0xFFFFFFFF
    return state
