"""Loaders are described when they are iterated, and neither iterated nor drawn from."""

from __future__ import annotations

import functools
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
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
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    dataloader,
)

from manifest.canonical import Json
from manifest.launching import launch
from manifest.pytorch.loaders import Loaders

Facts = dict[str, Json]
Written = Callable[[str], Path]


class Watching:
    """A watcher of loaders and all that it has said."""

    def __init__(self) -> None:
        self.facts: dict[str, Facts] = {}
        self.notes: list[object] = []
        self.loaders = Loaders(
            str(Path(__file__).parent),
            on_facts=self._add,
            on_note=lambda where, what: self.notes.append(what),
        )

    def _add(self, facts: dict[str, Json]) -> None:
        for name, values in facts.items():
            self.facts.setdefault(name, {}).update(values)


@pytest.fixture
def watching() -> Iterator[Watching]:
    watching = Watching()
    watching.loaders.watch()
    yield watching
    watching.loaders.finish()
    assert watching.notes == []


def make_loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(range(8), **{"batch_size": 2, "shuffle": True, **options})  # type: ignore[arg-type]


def collated(batch: list[Any], scale: int = 1) -> list[Any]:
    return [value * scale for value in batch]


class Numbers(Dataset[int]):
    def __init__(self) -> None:
        self.rng = np.random.default_rng(1)

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        return index


class Stream(IterableDataset[int]):
    def __len__(self) -> int:
        raise AssertionError("counted by reading all of it")

    def __iter__(self) -> Iterator[int]:
        return iter(range(5))


class NoLength(Numbers):
    def __len__(self) -> int:
        raise RuntimeError("the index is not built")


def test_a_loader_is_described_when_it_is_first_iterated(watching: Watching) -> None:
    generator = torch.Generator().manual_seed(3)
    loader = make_loader(generator=generator, drop_last=True)
    assert watching.facts == {}, "not when it is made"
    list(loader)
    facts = watching.facts["loader.0"]
    assert {name: facts[name] for name in ("batch_size", "drop_last", "num_workers")} == {
        "batch_size": 2,
        "drop_last": True,
        "num_workers": 0,
    }
    assert facts["place"].startswith("test_loaders.py:")
    assert (facts["dataset"], facts["dataset_length"]) == ("builtins.range", 8)
    assert facts["sampler"].endswith(".RandomSampler")
    assert facts["batch_sampler"].endswith(".BatchSampler")
    assert facts["collate_fn"].endswith("collate.default_collate")
    assert (facts["in_order"], facts["pin_memory"]) == (True, False)
    assert (facts["has_generator"], facts["worker_init_fn"]) == (True, None)
    assert facts["multiprocessing_context"] is None
    assert facts["generator_state"].startswith("xxh3:")


def test_a_loader_says_where_it_was_made_and_which_epochs_it_was_told(watching: Watching) -> None:
    line = sys._getframe().f_lineno + 2
    sampler: Any = DistributedSampler(range(8), num_replicas=2, rank=0)  # type: ignore[arg-type]
    loader: DataLoader[Any] = DataLoader(range(8), sampler=sampler)  # type: ignore[arg-type]
    for epoch in (0, 1, 1):
        sampler.set_epoch(epoch)
        iter(loader)
    watching.loaders.finish()
    facts = watching.facts["loader.0"]
    assert facts["made"] == f"test_loaders.py:{line}"
    assert facts["epochs"] == [0, 1, 1]


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_is_described_and_its_state_not_asked_for(
    workers: int, watching: Watching
) -> None:
    from torchdata.stateful_dataloader import StatefulDataLoader

    def make() -> StatefulDataLoader[Any]:
        context = "fork" if workers else None
        return StatefulDataLoader(
            Numbers(), batch_size=2, num_workers=workers, multiprocessing_context=context
        )

    first, second = make(), make()
    iterator = iter(first)
    next(iterator)
    second.load_state_dict(first.state_dict())
    assert [batch.tolist() for batch in second] == [[2, 3], [4, 5]]
    facts, continued = watching.facts.values()
    assert str(facts["loader"]).endswith(".StatefulDataLoader")
    assert str(facts["made"]).startswith("test_loaders.py:")
    assert (facts["snapshot_every_n_steps"], facts["dataset_is_stateful"]) == (1, False)
    assert facts["state_loaded"] is None
    assert str(continued["state_loaded"]).startswith("xxh3:")


def test_loaders_are_named_in_the_order_of_their_first_iterators(watching: Watching) -> None:
    made_first, used_first = make_loader(batch_size=1), make_loader(batch_size=4)
    for loader in (used_first, made_first, used_first):
        iter(loader)
    sizes = {name: facts["batch_size"] for name, facts in watching.facts.items()}
    assert sizes == {"loader.0": 4, "loader.1": 1}


def test_iterators_are_counted_and_the_first_seeds_kept(watching: Watching) -> None:
    loader, other = make_loader(), make_loader()
    seeds = [iter(loader)._base_seed for _ in range(20)]
    iter(other)
    assert watching.facts["loader.0"]["iterators"] == 1, "until the end"
    watching.loaders.finish()
    assert watching.facts["loader.0"]["iterators"] == 20
    assert watching.facts["loader.0"]["base_seed"] == seeds[:16]
    assert watching.facts["loader.1"]["iterators"] == 1


def test_the_state_is_that_before_the_first_iterator(watching: Watching) -> None:
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        iter(make_loader())
    first, again, other = (facts["generator_state"] for facts in watching.facts.values())
    assert first == again != other


def states() -> tuple[Any, ...]:
    legacy = np.random.get_state(legacy=False)
    return (
        random.getstate(),
        legacy["state"]["key"].tolist(),
        legacy["state"]["pos"],
        torch.get_rng_state().tolist(),
    )


def test_describing_draws_from_no_generator(watching: Watching) -> None:
    own, of_sampler = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    weighted = WeightedRandomSampler([0.5] * 8, 4, generator=of_sampler)
    for options in (
        {"num_workers": 0},
        {"num_workers": 2},
        {"generator": own},
        {"sampler": weighted, "shuffle": None},
        {"batch_sampler": BatchSampler(weighted, 2, drop_last=False), "batch_size": 1},
    ):
        if "batch_sampler" in options:
            options = {**options, "shuffle": None}  # noqa: PLW2901
        loader = make_loader(**options)
        before = states(), own.get_state().tolist(), of_sampler.get_state().tolist()
        assert watching.loaders.meet(loader, sys._getframe()) is not None
        assert (states(), own.get_state().tolist(), of_sampler.get_state().tolist()) == before


def test_samplers_are_told_apart(watching: Watching) -> None:
    weights = [0.1] * 7
    data = range(8)
    samplers = [
        WeightedRandomSampler([*weights, 0.1], 16),
        WeightedRandomSampler([*weights, 0.2], 16, replacement=True),
        SubsetRandomSampler([3, 1]),
        SubsetRandomSampler([1, 3]),
        DistributedSampler(data, num_replicas=4, rank=2, seed=9, drop_last=True),  # type: ignore[arg-type]
        RandomSampler(data, replacement=True),
    ]
    samplers[4].set_epoch(5)  # type: ignore[attr-defined]
    for sampler in samplers:
        iter(make_loader(sampler=sampler, shuffle=None))
    first, second, subset, other, distributed, drawn = watching.facts.values()
    assert first["sampler.weights"] != second["sampler.weights"]
    assert (first["sampler.num_samples"], first["sampler.replacement"]) == (16, True)
    assert subset["sampler.indices"] != other["sampler.indices"]
    of_sampler = {
        name.removeprefix("sampler."): value
        for name, value in distributed.items()
        if name.startswith("sampler.")
    }
    assert of_sampler == {
        "seed": 9,
        "epoch": 5,
        "rank": 2,
        "num_replicas": 4,
        "shuffle": True,
        "drop_last": True,
        "num_samples": 2,
    }
    assert drawn["sampler.replacement"] is True


def test_the_sampler_of_a_batch_sampler_is_described(watching: Watching) -> None:
    batches = BatchSampler(RandomSampler(range(8)), 3, drop_last=True)
    iter(DataLoader(range(8), batch_sampler=batches))  # type: ignore[arg-type]
    iter(DataLoader(range(8), batch_sampler=[[1, 2], [3]]))  # type: ignore[arg-type]
    own, listed = watching.facts.values()
    assert own["sampler"].endswith(".RandomSampler")
    assert (own["batch_sampler.batch_size"], own["batch_sampler.drop_last"]) == (3, True)
    assert (listed["sampler"], listed["batch_sampler"]) == (None, "builtins.list")


def test_datasets_and_functions_are_named(watching: Watching) -> None:
    iter(DataLoader(Stream(), batch_size=None))
    iter(DataLoader(NoLength(), sampler=SequentialSampler(range(3))))
    iter(make_loader(collate_fn=functools.partial(collated, scale=2), worker_init_fn=print))
    stream, broken, partial = watching.facts.values()
    assert (stream["dataset_length"], stream["batch_size"]) == (None, None)
    assert broken["dataset_length"] == {"$failed": "RuntimeError: the index is not built"}
    assert broken["dataset_has_rng"] is True
    assert partial["collate_fn"] == f"functools.partial({__name__}.collated)"
    assert partial["worker_init_fn"] == "builtins.print"


class OfOthers(DataLoader[Any]):
    """A loader with an `__iter__` and an iterator of its own, as other libraries have."""

    def __iter__(self) -> Any:
        return OwnIterator(self, None)


class OwnIterator(dataloader._SingleProcessDataLoaderIter):
    def __init__(self, loader: Any, state: object) -> None:
        super().__init__(loader)
        self.state = state


class Wrapper:
    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        yield from self.loader


def test_loaders_of_others_are_seen(watching: Watching) -> None:
    expected = list(OfOthers(range(4)))  # type: ignore[arg-type]
    assert list(Wrapper(OfOthers(range(4)))) == expected  # type: ignore[arg-type]
    assert [facts["loader"].rpartition(".")[2] for facts in watching.facts.values()] == [
        "OfOthers",
        "OfOthers",
    ]


def test_workers_that_live_on_are_one_iterator(watching: Watching) -> None:
    loader = make_loader(num_workers=1, persistent_workers=True, multiprocessing_context="fork")
    list(loader), list(loader)
    facts = watching.facts["loader.0"]
    assert (facts["iterators"], facts["prefetch_factor"]) == (1, 2)
    assert (facts["persistent_workers"], facts["multiprocessing_context"]) == (True, "fork")


def test_a_loader_that_was_seen_is_as_it_was(watching: Watching) -> None:
    loader = make_loader()
    before = pickle.dumps(loader), set(vars(loader))
    iter(loader)
    assert (pickle.dumps(loader), set(vars(loader))) == before
    wrapped = dataloader._BaseDataLoaderIter.__init__
    again = Watching()
    again.loaders.watch()
    assert dataloader._BaseDataLoaderIter.__init__ is wrapped, "and no second time"
    assert wrapped.__qualname__ == "_BaseDataLoaderIter.__init__"
    watching.loaders.watch()


def test_the_number_of_loaders_is_bounded(watching: Watching) -> None:
    for _ in range(80):
        iter(make_loader())
    assert len(watching.facts) == 64


def test_nobody_is_told_after_the_end() -> None:
    watching = Watching()
    watching.loaders.watch()
    watching.loaders.finish()
    iter(make_loader())
    assert watching.facts == {}


SCRIPT = """\
import random, sys
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

class Noisy(Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, index):
        inner = sum(batch.item() for batch in DataLoader(range(2), shuffle=True))
        return random.random() + np.random.rand() + torch.rand(1).item() + inner

if sys.argv[1] == "record":
    import manifest
    manifest.record()
for seed in (random.seed, np.random.seed, torch.manual_seed):
    seed(3)
own = torch.Generator().manual_seed(4)
loaders = [
    DataLoader(Noisy(), batch_size=4, shuffle=True),
    DataLoader(Noisy(), batch_size=4, shuffle=True, num_workers=2),
    DataLoader(Noisy(), batch_size=4, shuffle=True, generator=own),
]
for _ in range(2):
    for loader in loaders:
        iterator = iter(loader)
        print(torch.get_rng_state().sum(), own.get_state().sum(), random.getstate()[1][-1])
        print([batch.tolist() for batch in iterator])
print(random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
print(torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
if sys.argv[2:]:
    import os
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def test_a_program_that_loads_does_not_notice(
    script: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(mode: str) -> str:
        command = [sys.executable, "script.py", mode]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    plainly = run("plain")
    assert run("record") == plainly
    launched = launch([sys.executable, "script.py", "run"], base=tmp_path / ".manifest")
    assert capfd.readouterr().out == plainly
    loaders = launched.run.document()["sections"]["loaders"]
    of_program = [facts for facts in loaders.values() if facts["batch_size"] == 4]
    assert [facts["place"] for facts in of_program] == ["script.py:26"] * 3
    assert [facts["iterators"] for facts in of_program] == [2, 2, 2]
    assert sorted(facts["has_generator"] for facts in of_program) == [False, False, True]
    assert all(len(facts["base_seed"]) == 2 for facts in of_program)


def test_a_loader_is_on_disk_before_the_program_goes_on(script: Path, tmp_path: Path) -> None:
    command = [sys.executable, "script.py", "run", "killed"]
    document = launch(command, base=tmp_path / ".manifest").run.document()
    assert document["status"] == "crashed"
    assert document["sections"]["loaders"]["loader.0"]["iterators"] == 1
