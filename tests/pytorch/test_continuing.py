"""A loader that is continued gives the same batches, and leaves the generators the same."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torchdata.stateful_dataloader import StatefulDataLoader

from manifest.canonical import Json
from manifest.errors import StateNotRestorable
from manifest.identity import new_run_id
from manifest.pytorch.loaders import Loaders
from manifest.restoring import RestoredItem
from manifest.rundir import RunDirectory
from manifest.snapshotdocs import find_snapshot
from manifest.snapshots import Snapshots, resume
from manifest.tracking import Tracking

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata calls it

Seen = list[tuple[Any, ...]]
Epochs = Callable[[int], Iterable[Any]]
"""What a program goes through in an epoch."""


class Host:
    """What a recorder gives to snapshots, in this process."""

    def __init__(self, base: Path) -> None:
        self.run = RunDirectory.create(base, new_run_id())
        _, self.journal = self.run.claim("main")
        self.notes: list[object] = []
        self.outcomes: list[RestoredItem] = []
        self.tracking = Tracking(self)
        self.snapshots = Snapshots(self.run, self.tracking, self)
        self.loaders = Loaders(
            str(Path(__file__).parent),
            on_facts=lambda facts: None,
            on_note=self.note,
            tracked=self.tracking.generators,
        )

    def say(self, kind: str, **fields: Json) -> None:
        self.journal.append(kind, **fields)

    def section(self, name: str, values: dict[str, Json]) -> None:
        self.journal.section(name, values)

    def note(self, where: str, what: object) -> None:
        self.notes.append(what)

    def restored(self, items: Iterable[RestoredItem]) -> None:
        self.outcomes += items

    def snapshot(self, name: str | int, underway: Collection[Any] | None = None) -> str:
        return self.snapshots.take(name, step=None, loaders=self.loaders, underway=underway)

    def resume(self, name: str, *, is_strict: bool = True) -> list[RestoredItem]:
        snapshot = find_snapshot(self.run, name, process="main", rank=None)
        items, continuing = resume(
            self.run,
            snapshot,
            tracking=self.tracking,
            loaders=self.loaders,
            on_outcome=self.outcomes.append,
            is_strict=is_strict,
        )
        self.continuing = continuing
        return items

    def end(self) -> None:
        self.continuing.end()  # type: ignore[union-attr]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    host.loaders.watch()
    yield host
    host.loaders.finish()
    assert host.notes == []


class Noisy(Dataset[Any]):
    """Samples that are drawn anew from all three generators each time."""

    def __init__(self, length: int = 12) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return torch.tensor([index, random.random(), np.random.normal(), torch.randn(()).item()])


class WithGenerator(Noisy):
    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(4)

    def __getitem__(self, index: int) -> Any:
        return torch.tensor([index, self.rng.random()])


class Stream(IterableDataset[Any]):
    """Shuffled in the way of streams, from a generator that nobody else draws from."""

    def __iter__(self) -> Iterator[Any]:
        rng = random.Random(torch.initial_seed() % 1000)
        for index in range(14):
            yield torch.tensor([index, rng.random()])


def seed(value: int) -> None:
    torch.manual_seed(value)
    random.seed(value)
    np.random.seed(value)


def draw() -> tuple[Any, ...]:
    """Draw as a model with dropout does, and a program that shuffles something itself."""
    return torch.rand(()).item(), torch.randn(()).item(), random.random(), np.random.normal()


def plain(batch: Any) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch.tolist()
    return [plain(item) for item in batch] if isinstance(batch, (list, tuple)) else batch


def train(host: Host, make: Callable[[], Epochs], *, stop: int, after: str | None = None) -> Seen:
    """A program of three epochs, which takes a snapshot and goes on, or begins after one."""
    seen: Seen = []
    begin, done = 0, 0
    if after is not None:
        begin, done = (int(part) for part in after.split("-")[:2])
    epochs = make()
    if after is not None:
        seed(99)
        host.resume(after)
    for epoch in range(begin, 3):
        for batch in epochs(epoch):
            seen.append((plain(batch), draw()))
            done += 1
            if done == stop:
                host.snapshot(f"{epoch}-{done}")
    return seen


def workers_of(count: int) -> dict[str, Any]:
    return {"num_workers": count, "multiprocessing_context": "fork" if count else None}


def shuffled(workers: int) -> Epochs:
    loader = DataLoader(Noisy(), batch_size=2, shuffle=True, **workers_of(workers))
    return lambda epoch: loader


def with_generator(workers: int) -> Epochs:
    own = torch.Generator().manual_seed(3)
    loader = DataLoader(Noisy(), 2, shuffle=True, generator=own, **workers_of(workers))
    return lambda epoch: loader


def weighted(workers: int) -> Epochs:
    sampler = WeightedRandomSampler([0.1, 0.5, 0.9] * 4, 12)
    loader = DataLoader(Noisy(), 2, sampler=sampler, **workers_of(workers))
    return lambda epoch: loader


def drawn_from_its_own(workers: int) -> Epochs:
    own = torch.Generator().manual_seed(3)
    sampler = RandomSampler(Noisy(), replacement=True, num_samples=150, generator=own)
    loader = DataLoader(Noisy(), 20, sampler=sampler, **workers_of(workers))
    return lambda epoch: loader


def in_batches(workers: int) -> Epochs:
    batches = BatchSampler(SubsetRandomSampler(range(1, 12)), 2, drop_last=True)
    loader = DataLoader(Noisy(), batch_sampler=batches, **workers_of(workers))
    return lambda epoch: loader


def distributed(workers: int) -> Epochs:
    sampler: Any = DistributedSampler(Noisy(30), num_replicas=2, rank=1)
    loader = DataLoader(Noisy(30), 2, sampler=sampler, **workers_of(workers))

    def epoch_of_it(epoch: int) -> Iterable[Any]:
        sampler.set_epoch(epoch)
        return loader

    return epoch_of_it


def streamed(workers: int) -> Epochs:
    loader = DataLoader(Stream(), 2, **workers_of(workers))
    return lambda epoch: loader


def with_generator_in_data(workers: int) -> Epochs:
    loader = DataLoader(Subset(WithGenerator(), range(10)), 2, shuffle=True, **workers_of(workers))
    return lambda epoch: loader


def side_by_side(workers: int) -> Epochs:
    first = DataLoader(Noisy(), 2, shuffle=True, **workers_of(workers))
    second = DataLoader(Noisy(16), 2, shuffle=True, **workers_of(0))
    return lambda epoch: zip(first, second, strict=False)


def without_end(workers: int) -> Epochs:
    """One loader that is gone through for ever, beside one of epochs."""

    def forever() -> Iterator[Any]:
        while True:
            yield from first

    first = DataLoader(Noisy(10), 2, shuffle=True, **workers_of(workers))
    second = DataLoader(Noisy(14), 2, shuffle=True, **workers_of(0))
    endless = forever()
    return lambda epoch: ((next(endless), batch) for batch in second)


def made_each_epoch(workers: int) -> Epochs:
    return lambda epoch: DataLoader(Noisy(), 2, shuffle=True, **workers_of(workers))


def made_by_a_function(workers: int) -> Epochs:
    def make(length: int) -> DataLoader[Any]:
        return DataLoader(Noisy(length), 2, shuffle=True, **workers_of(workers))

    loaders = make(10), make(12)
    return lambda epoch: zip(*loaders, strict=False)


def stateful(workers: int) -> Epochs:
    loader = StatefulDataLoader(Noisy(), 2, shuffle=True, **workers_of(workers))
    return lambda epoch: loader


def stateful_stream(workers: int) -> Epochs:
    loader = StatefulDataLoader(Stream(), 2, **workers_of(workers))
    return lambda epoch: loader


PROGRAMS = [
    shuffled,
    with_generator,
    weighted,
    drawn_from_its_own,
    in_batches,
    distributed,
    streamed,
    with_generator_in_data,
    side_by_side,
    without_end,
    made_each_epoch,
    made_by_a_function,
    stateful,
    stateful_stream,
]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_program_goes_on_as_if_it_had_not_stopped(
    program: Callable[[int], Epochs], workers: int, host: Host
) -> None:
    seed(1)
    whole = train(host, lambda: program(workers), stop=9)
    taken = host.snapshots._names.copy().pop()
    rest = train(host, lambda: program(workers), stop=0, after=taken)
    assert rest == whole[9:]
    assert {item.outcome for item in host.outcomes} == {"restored"}
    seed(99)
    begin = int(taken[0])
    naive = [
        (plain(batch), draw()) for epoch in range(begin, 3) for batch in program(workers)(epoch)
    ]
    assert naive != whole[9:]


def snapshot_in(host: Host, loader: Any, count: int) -> Iterator[Any]:
    """Take a snapshot when some batches were delivered; the iterator is handed out."""
    iterator: Iterator[Any] = iter(loader)
    for _ in range(count):
        next(iterator)
    host.snapshot("here")
    return iterator


@pytest.mark.parametrize("workers", [0, 2])
def test_it_can_be_continued_again_and_again(workers: int, host: Host) -> None:
    def make() -> Epochs:
        return side_by_side(workers)

    seed(1)
    whole = train(host, make, stop=2)
    rest = train(host, make, stop=4, after="0-2")
    again = train(host, make, stop=5, after="0-4")
    assert (rest, again) == (whole[2:], whole[4:])
    assert train(host, make, stop=0, after="0-5") == whole[5:]


def noisy_loader() -> DataLoader[Any]:
    return DataLoader(Noisy(), 2, shuffle=True)


def test_what_the_program_draws_before_its_loader_goes_on_does_not_count(host: Host) -> None:
    seed(1)
    expected = plain(list(snapshot_in(host, noisy_loader(), 2)))
    host.resume("here")
    draw()
    assert len(list(DataLoader(Noisy(), 2, shuffle=True))) == 6, "another one is not continued"
    assert plain(list(noisy_loader())) == expected


@pytest.mark.parametrize("is_made_later", [False, True])
def test_generators_of_loaders_that_nobody_iterates_are_put_back_too(
    is_made_later: bool, host: Host
) -> None:
    def make() -> tuple[torch.Generator, list[DataLoader[Any]]]:
        own = torch.Generator().manual_seed(3)
        data = Noisy()
        return own, [DataLoader(data, 4, shuffle=True, generator=own) for _ in range(2)]

    def program(after: str | None) -> Seen:
        seen: Seen = []
        if after is not None and is_made_later:
            host.resume(after)
        own, loaders = make()
        if after is not None and not is_made_later:
            host.resume(after)
            seen.append((torch.rand((), generator=own).item(),))
        for epoch in range(2 if after is None else 1):
            seen += [(plain(batch),) for loader in loaders for batch in loader]
            if epoch == 0 and after is None:
                host.snapshot("between")
                if not is_made_later:
                    seen.append((torch.rand((), generator=own).item(),))
        return seen

    seed(1)
    assert program(None)[6:] == program("between")


def test_a_tracked_generator_is_put_back_now_or_when_it_is_tracked(host: Host) -> None:
    early, late = random.Random(1), np.random.default_rng(2)
    host.tracking.track("early", early)
    host.tracking.track("late", late)
    host.snapshot("here")
    expected = early.random(), late.random()
    host.tracking.finish()
    again_early, again_late = random.Random(8), np.random.default_rng(9)
    host.tracking.track("early", again_early)
    outcomes = {item.what: item.outcome for item in host.resume("here")}
    assert outcomes["early"] == "restored"
    host.tracking.track("late", again_late)
    assert (again_early.random(), again_late.random()) == expected


def test_a_name_finds_a_loader_that_is_made_elsewhere(host: Host) -> None:
    seed(1)
    loader = noisy_loader()
    host.loaders.positions.name(loader, "train")
    expected = plain(list(snapshot_in(host, loader, 3)))
    moved = DataLoader(Noisy(), 2, shuffle=True)
    host.loaders.positions.name(moved, "train")
    assert host.resume("here")[0].what == "train"
    assert plain(list(moved)) == expected


class DrawnFromAll(Sampler[int]):
    """An order that all three generators decide, drawn when the first batch is asked for."""

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(12).tolist()
        random.shuffle(order)
        return iter(np.random.permutation(order).tolist())

    def __len__(self) -> int:
        return 12


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "draw_between",
    [
        random.random,
        lambda: random.gauss(0, 1),
        lambda: random.getrandbits(32 * 624),  # all words are new, and the next is where it was
        np.random.random,
        np.random.standard_normal,
        lambda: np.random.bytes(4 * 624),
        lambda: torch.rand(1),
        lambda: torch.rand(624),
        lambda: seed(2),
    ],
)
def test_what_the_program_draws_between_two_iterators_is_in_the_snapshot(
    draw_between: Callable[[], object], workers: int, host: Host
) -> None:
    seed(1)
    loader = DataLoader(Noisy(), 2, sampler=DrawnFromAll(), **workers_of(workers))
    for _ in range(2):
        next(iter(loader))
        draw_between()
    iterator = snapshot_in(host, loader, 3)
    expected = plain(list(iterator)), draw()
    seed(99)
    host.resume("here")
    assert (plain(list(loader)), draw()) == expected
    assert host.outcomes[-1].outcome == "restored"


def test_of_two_iterators_of_a_loader_the_newest_is_continued(host: Host) -> None:
    seed(1)
    loader = noisy_loader()
    first_look = iter(loader)
    next(first_look)
    iterator = snapshot_in(host, loader, 4)
    expected = plain(list(iterator))
    host.resume("here")
    assert plain(list(loader)) == expected


@pytest.mark.parametrize("kind", [DataLoader, StatefulDataLoader])
def test_an_iterator_that_was_left_is_not_continued(kind: Any, host: Host) -> None:
    loader = kind(Noisy(), 2)
    for _ in loader:
        break
    host.snapshot("here")
    # Seeds wait for CUDA, where PyTorch is built with it.
    continued = {item.what for item in host.resume("here")} - {"torch.cuda"}
    assert continued == {"numpy.legacy", "python", "torch.cpu"}
    assert len(list(loader)) == 6


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"persistent_workers": True}, "persistent_workers=True"),
        ({"in_order": False}, "in_order=False"),
    ],
)
def test_what_cannot_be_exact_is_refused(options: dict[str, Any], reason: str, host: Host) -> None:
    loader = DataLoader(Noisy(), 2, num_workers=1, multiprocessing_context="fork", **options)
    iterator = iter(loader)
    for _ in range(6 if "persistent_workers" in options else 3):
        next(iterator)
    next(iterator, None)
    host.snapshot("here")
    before = torch.get_rng_state().tolist()
    seed(99)
    with pytest.raises(StateNotRestorable, match=reason):
        host.resume("here")
    assert torch.get_rng_state().tolist() != before, "and nothing was set"
    (item, *_) = host.resume("here", is_strict=False)
    assert (item.outcome, torch.get_rng_state().tolist()) == ("failed", before)
    assert len(list(DataLoader(Noisy(), 2))) == 6


def test_workers_that_live_on_can_be_continued_in_their_first_round(host: Host) -> None:
    def make() -> Epochs:
        loader = DataLoader(Noisy(), 2, persistent_workers=True, **workers_of(2))
        return lambda epoch: loader

    seed(1)
    whole = train(host, make, stop=2)
    assert train(host, make, stop=0, after="0-2") == whole[2:]


class Lazy(Sampler[int]):
    """Draws as it goes, from the generator that the program draws from too."""

    def __iter__(self) -> Iterator[int]:
        for _ in range(12):
            yield random.randrange(12)

    def __len__(self) -> int:
        return 12


@pytest.mark.parametrize("workers", [0, 2])
def test_draws_that_cannot_be_told_apart_are_refused(workers: int, host: Host) -> None:
    def make() -> DataLoader[Any]:
        return DataLoader(range(12), 1, sampler=Lazy(), **workers_of(workers))  # type: ignore[arg-type]

    seed(1)
    iterator = snapshot_in(host, make(), 4)
    expected = plain(list(iterator))
    host.resume("here")
    assert plain(list(make())) == expected, "the sampler alone has drawn"

    iterator = iter(make())
    for _ in range(4):
        next(iterator)
        random.random()
    host.snapshot("shared")
    del iterator
    host.resume("shared")
    with pytest.raises(StateNotRestorable, match="it draws from python as it goes"):
        iter(make())
    assert host.outcomes[-1].outcome == "failed"


def test_a_loader_that_changed_is_not_continued(host: Host) -> None:
    def make(length: int, epoch: int) -> DataLoader[Any]:
        data = Noisy(length)
        sampler: Any = DistributedSampler(data, num_replicas=2, rank=0)
        sampler.set_epoch(epoch)
        return DataLoader(data, 2, sampler=sampler)

    loader = make(20, 1)
    iterator = snapshot_in(host, loader, 2)
    del loader, iterator
    for length, epoch, reason in ((24, 1, "dataset_length was 20"), (20, 0, "set_epoch")):
        host.resume("here")
        changed = make(length, epoch)
        with pytest.raises(StateNotRestorable, match=reason):
            iter(changed)
        del changed
    host.resume("here", is_strict=False)
    assert len(list(make(24, 1))) == 6, "goes on from the start, and says so"
    assert host.outcomes[-1][1:3] == ("failed", "dataset_length was 20, here it is 24")


def test_a_sampler_with_another_seed_is_refused(host: Host) -> None:
    def make(seed: int) -> DataLoader[Any]:
        sampler: Any = DistributedSampler(Noisy(), num_replicas=2, rank=0, seed=seed)
        return DataLoader(Noisy(), 2, sampler=sampler)

    iterator = snapshot_in(host, make(1), 2)
    del iterator
    host.resume("here")
    with pytest.raises(StateNotRestorable, match=r"sampler.seed was 1, here it is 2"):
        iter(make(2))


class Failing(Noisy):
    """Samples of which one cannot be read at its first try."""

    has_failed = False

    def __getitem__(self, index: int) -> Any:
        if index == 7 and not self.has_failed:
            self.has_failed = True
            raise OSError("not readable now")
        return super().__getitem__(index)


def failing_loader(workers: int) -> DataLoader[Any]:
    return DataLoader(Failing(), 2, **workers_of(workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_iterator_that_goes_on_behind_a_failure_is_refused(workers: int, host: Host) -> None:
    seed(1)
    iterator = iter(failing_loader(workers))
    for _ in range(3):
        next(iterator)
    with pytest.raises(OSError, match="not readable now"):
        next(iterator)
    next(iterator)
    host.snapshot("here")
    with pytest.raises(StateNotRestorable, match="making one of its batches failed"):
        host.resume("here")


def test_a_failure_of_a_worker_takes_nothing_from_what_was_given_before(host: Host) -> None:
    seed(1)
    iterator = iter(failing_loader(2))
    for _ in range(3):
        next(iterator)
    with pytest.raises(OSError, match="not readable now"):
        next(iterator)
    host.snapshot("here")
    del iterator
    host.resume("here")
    again = iter(failing_loader(2))
    with pytest.raises(OSError, match="not readable now"):
        next(again)
    assert host.outcomes[-1].reason == "continues after 3 batches"


def test_of_several_loaders_any_can_be_asked_first(host: Host) -> None:
    def make() -> list[Iterator[Any]]:
        return [iter(DataLoader(Noisy(n), 2, shuffle=True)) for n in (10, 12)]

    def step(iterators: list[Iterator[Any]]) -> Any:
        return [plain(next(each)) for each in reversed(iterators)]

    seed(1)
    iterators = make()
    step(iterators)
    host.snapshot("here")
    expected = [step(iterators) for _ in range(3)]
    seed(99)
    host.resume("here")
    iterators = make()
    assert [step(iterators) for _ in range(3)] == expected


def test_a_dataset_that_grew_between_epochs_is_known_as_it_is(host: Host) -> None:
    def make(length: int) -> DataLoader[Any]:
        return DataLoader(Noisy(length), 2, shuffle=True)

    seed(1)
    loader: Any = make(12)
    list(loader)
    loader.dataset.length = 20
    expected = plain(list(snapshot_in(host, loader, 2)))
    del loader
    host.resume("here")
    with pytest.raises(StateNotRestorable, match="dataset_length was 20, here it is 12"):
        iter(make(12))
    host.resume("here")
    assert plain(list(make(20))) == expected


class Cursor(Sampler[int]):
    """Goes on in the next epoch where it was, and keeps that to itself."""

    def __init__(self) -> None:
        self.at = 0

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[int]:
        for _ in range(4):
            yield self.at
            self.at = (self.at + 1) % 12


class Elsewhere(Sampler[int]):
    """Draws from a generator that is no attribute of it."""

    rng = random.Random(3)

    def __len__(self) -> int:
        return 12

    def __iter__(self) -> Iterator[int]:
        return iter(Elsewhere.rng.sample(range(12), 12))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", [Cursor, Elsewhere])
def test_a_sampler_that_gives_other_samples_is_refused(
    kind: type[Sampler[int]], workers: int, host: Host
) -> None:
    def make() -> DataLoader[Any]:
        return DataLoader(Noisy(), sampler=kind(), **workers_of(workers))

    seed(1)
    loader = make()
    list(loader)
    iterator = snapshot_in(host, loader, 2)
    del iterator, loader
    host.resume("here")
    with pytest.raises(StateNotRestorable, match="its sampler gives other samples"):
        iter(make())


def test_a_tracked_generator_of_a_sampler_elsewhere_is_continued(host: Host) -> None:
    def make() -> DataLoader[Any]:
        return DataLoader(Noisy(), sampler=Elsewhere())

    seed(1)
    host.tracking.track("order", Elsewhere.rng)
    expected = plain(list(snapshot_in(host, make(), 2)))
    host.resume("here")
    assert plain(list(make())) == expected


def test_a_loader_that_is_never_iterated_again_is_named(host: Host) -> None:
    iterator = snapshot_in(host, DataLoader(Noisy(), 2), 1)
    del iterator
    host.resume("here")
    host.end()
    ((what, outcome, *_),) = host.outcomes
    assert what.startswith("the loader made at test_continuing.py:")
    assert outcome == "skipped"


class Counting(Stream):
    """A stream that knows itself where it is."""

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self) -> Iterator[Any]:
        while self.at < 14:
            self.at += 1
            yield torch.tensor([self.at, random.random()])

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]


@pytest.mark.parametrize("workers", [0, 2])
def test_data_with_a_state_of_its_own_gets_it_back(workers: int, host: Host) -> None:
    def make() -> StatefulDataLoader[Any]:
        return StatefulDataLoader(Counting(), 2, **workers_of(workers))

    seed(1)
    expected = plain(list(snapshot_in(host, make(), 3)))
    host.resume("here", is_strict=not workers)
    found = plain(list(make()))
    assert [[row[0] for row in batch] for batch in found] == [
        [row[0] for row in batch] for batch in expected
    ]
    assert (found == expected) == (not workers)
    assert "state_dict()" in host.outcomes[0].reason


def test_a_state_that_the_program_loaded_itself_is_not_applied_twice(host: Host) -> None:
    def make() -> StatefulDataLoader[Any]:
        return StatefulDataLoader(Noisy(), 2, shuffle=True, **workers_of(2))

    seed(1)
    loader = make()
    iterator = snapshot_in(host, loader, 2)
    state = loader.state_dict()
    expected = plain(list(iterator))
    del loader, iterator
    again = make()
    again.load_state_dict(state)
    host.resume("here")
    assert plain(list(again)) == expected


def test_batches_that_are_passed_over_reach_no_listener(host: Host) -> None:
    from manifest.pytorch import hooks

    class Listener:
        def __init__(self) -> None:
            self.batches = 0

        def gather(self, stream: str, value: object) -> None:
            self.batches += 1

    earlier, listener = hooks.listener(), Listener()
    loader = DataLoader(Noisy(), 2, **workers_of(1))
    iterator = snapshot_in(host, loader, 4)
    del iterator
    hooks.listen(listener)  # type: ignore[arg-type]
    try:
        host.resume("here")
        list(loader)
    finally:
        hooks.stop_listening(listener)  # type: ignore[arg-type]
        if earlier is not None:
            hooks.listen(earlier)
    assert listener.batches == 2


def test_what_the_program_draws_before_its_first_batch_is_no_part_of_the_run(host: Host) -> None:
    seed(1)
    loader = noisy_loader()
    expected = plain(list(snapshot_in(host, loader, 3))), draw()
    host.resume("here")
    iterator = iter(loader)
    draw()
    assert (plain(list(iterator)), draw()) == expected


def test_only_loaders_that_are_underway_are_continued(host: Host) -> None:
    seed(1)
    first, second = noisy_loader(), DataLoader(Noisy(), 4, shuffle=True)
    iterators = iter(first), iter(second)
    for iterator in iterators:
        next(iterator)
    host.snapshot("here", underway=[first])
    expected = plain(list(iterators[0])), plain(list(second))
    seed(99)
    host.resume("here")
    assert (plain(list(first)), plain(list(second))) == expected
    assert len(expected[1]) == 3, "all of it"
    assert len(host.outcomes) == 1


def test_workers_that_live_on_matter_where_their_loader_begins_anew(host: Host) -> None:
    loader = DataLoader(Noisy(), 2, persistent_workers=True, **workers_of(1))
    next(iter(loader))
    host.snapshot("here", underway=[])
    with pytest.raises(StateNotRestorable, match="persistent_workers=True"):
        host.resume("here")


def test_a_name_that_the_program_gave_is_kept(host: Host) -> None:
    positions = host.loaders.positions
    named, other = noisy_loader(), noisy_loader()
    positions.name(named, "mine")
    for loader in (named, other):
        positions.propose(loader, "theirs", ahead=0)
    assert [str(positions.identities.of(loader)) for loader in (named, other)] == ["mine", "theirs"]


class Ahead:
    """A wrapper that holds batches ahead, as those of frameworks do to see the last one coming."""

    def __init__(self, loader: DataLoader[Any], count: int) -> None:
        self.loader = loader
        self.count = count

    def __iter__(self) -> Iterator[Any]:
        iterator, held = iter(self.loader), deque[Any]()
        for batch in iterator:
            held.append(batch)
            if len(held) > self.count:
                yield held.popleft()
        yield from held


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", [Noisy, Stream])
def test_batches_that_a_wrapper_holds_are_given_again(
    kind: Any, count: int, workers: int, host: Host
) -> None:
    def make() -> Epochs:
        data = kind()
        loader = DataLoader(data, 2, shuffle=kind is Noisy, **workers_of(workers))
        host.loaders.positions.propose(loader, "train", ahead=count)
        return lambda epoch: Ahead(loader, count)

    seed(1)
    for stop in (1, 3, 15):
        whole = train(host, make, stop=stop)
        (taken,) = (name for name in host.snapshots._names if name.endswith(f"-{stop}"))
        assert train(host, make, stop=0, after=taken) == whole[stop:]
        assert {item.outcome for item in host.outcomes} == {"restored"}


def test_a_name_that_is_proposed_is_that_of_the_newest_loader(host: Host) -> None:
    positions = host.loaders.positions
    own = torch.Generator().manual_seed(3)
    old = DataLoader(Noisy(), 2, shuffle=True, generator=own)
    positions.propose(old, "train", ahead=0)
    expected = plain(list(snapshot_in(host, old, 2)))
    new = DataLoader(Noisy(), 2, shuffle=True, generator=torch.Generator().manual_seed(4))
    positions.propose(new, "train", ahead=0)
    host.resume("here")
    assert plain(list(new)) == expected
