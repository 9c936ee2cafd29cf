"""Watching a program train: what is seen, and that the program is none the worse for it."""

from __future__ import annotations

import copy
import gc
import inspect
import math
import os
import random
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data import dataloader as loader_module
from xxhash import xxh3_128_digest

from manifest.comparing import compare_trails
from manifest.numbers import is_unobserved
from manifest.pytorch.batches import Gathering
from manifest.pytorch.rows import Row, Rows, Watched
from manifest.pytorch.states import Drawn, Generators
from manifest.pytorch.sums import device_sums
from manifest.pytorch.tensors import fingerprint, fingerprint_many
from manifest.pytorch.transfers import Reading
from manifest.pytorch.watching import Watcher
from manifest.streams import STREAMS
from manifest.trail import Trail, TrailWriter

Start = Callable[..., Watcher]


class Watching:
    """A watcher, where its trail lies, and what it noted."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "main.bin"
        self.notes: list[tuple[str, object]] = []
        self.watcher = Watcher(
            lambda: self.path, on_note=lambda where, what: self.notes.append((where, what))
        )

    def trail(self) -> Trail:
        self.watcher.finish()
        assert self.notes == []
        return Trail.open(self.path)


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    watching = Watching(tmp_path)
    watching.watcher.install()
    yield watching
    watching.watcher.finish()


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))


def make_loader() -> DataLoader[tuple[Tensor, ...]]:
    torch.manual_seed(0)
    return DataLoader(TensorDataset(torch.randn(12, 4), torch.randn(12, 1)), batch_size=4)


def backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def train(model: nn.Module, optimizer: Optimizer, *, steps: int = 3) -> None:
    torch.manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        backward(model(torch.randn(5, 4)).square().mean())
        optimizer.step()


def test_every_stream_is_seen_at_every_step(watching: Watching) -> None:
    model = make_model()
    optimizer = Adam(model.parameters())
    for inputs, targets in make_loader():
        optimizer.zero_grad()
        backward(nn.functional.mse_loss(model(inputs), targets))
        optimizer.step()
    trail = watching.trail()
    assert trail.steps == 3
    assert trail.streams() == STREAMS
    names = ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert list(trail.leaves.at(2, "param") or {}) == names
    assert list(trail.leaves.at(2, "grad") or {}) == names
    assert trail.final is not None
    assert list(trail.final.tensors) == names
    assert trail.final.tensors["2.bias"] == fingerprint(list(model.parameters())[3]).hex()
    assert "torch.cpu" in trail.final.rng


def test_fingerprints_are_those_of_what_was_there(watching: Watching) -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = SGD([weight], lr=0.5)
    loss = weight.sum()
    backward(loss)
    optimizer.step()
    trail = watching.trail()
    assert trail.digest(0, "grad") == fingerprint(torch.ones(2))
    assert trail.digest(0, "param") == fingerprint(torch.full((2,), 0.5))
    assert trail.digest(0, "batch") is None
    assert trail.leaves.at(0, "param") == {"group0.param0": fingerprint(weight)[:8]}


def weights_after(work: Callable[[], nn.Module]) -> list[bytes]:
    return fingerprint_many(work().parameters())


def test_a_program_gives_the_same_bits_with_and_without(tmp_path: Path) -> None:
    def work() -> nn.Module:
        random.seed(0)
        np.random.seed(0)
        model = make_model()
        model.append(nn.Dropout())
        optimizer = SGD(model.parameters(), lr=0.1)
        for inputs, targets in make_loader():
            noise = random.random() + float(np.random.rand())
            backward((model(inputs) - targets + noise).square().mean())
            optimizer.step()
        return model

    def drawn() -> tuple[object, ...]:
        return random.random(), np.random.rand(), torch.rand(1).item()

    without, drawn_without = weights_after(work), drawn()
    watching = Watching(tmp_path)
    watching.watcher.install()
    watched, drawn_watched = weights_after(work), drawn()
    assert watching.trail().steps == 3
    assert watched == without
    assert drawn_watched == drawn_without


def test_reading_generators_draws_nothing_and_sees_every_draw() -> None:
    generators = Generators()
    before = generators.read().by_name()
    assert generators.read().by_name() == before
    draws: dict[str, Callable[[], object]] = {
        "python": random.random,
        "numpy.legacy": np.random.rand,
        "torch.cpu": lambda: torch.rand(1),
    }
    for name, draw in draws.items():
        draw()
        after = generators.read().by_name()
        assert [key for key in after if after[key] != before[key]] == [name]
        before = after


def test_states_read_from_memory_are_those_of_the_public_functions() -> None:
    fast, slow = Generators(), Generators()
    expected = slow.read().by_name()
    assert slow._python is not None
    assert slow._numpy is not None
    slow._python._words = slow._python._slow_words
    slow._numpy._words, slow._numpy._kept = slow._numpy._slow_words, slow._numpy._slow_kept
    assert fast.read().by_name() == slow.read().by_name() == expected
    random.gauss(0, 1)
    np.random.randn()
    found = fast.read().by_name()
    assert found == slow.read().by_name()
    assert [name for name in found if found[name] != expected[name]] == ["python", "numpy.legacy"]


def test_a_draw_that_numpy_had_kept_back_is_seen() -> None:
    np.random.seed(0)
    np.random.randn()
    generators = Generators()
    before = generators.read().by_name()
    np.random.randn()
    assert generators.read().by_name()["numpy.legacy"] != before["numpy.legacy"]


def test_another_bit_generator_of_numpy_is_seen() -> None:
    generators = Generators()
    legacy: Any = np.random
    before = legacy.get_bit_generator()
    legacy.set_bit_generator(np.random.PCG64(0))
    try:
        first = generators.read().by_name()["numpy.legacy"]
        assert generators.read().by_name()["numpy.legacy"] == first
        np.random.rand()
        assert generators.read().by_name()["numpy.legacy"] != first
    finally:
        legacy.set_bit_generator(before)


OWN: dict[str, tuple[Any, Callable[[Any], object]]] = {
    "Random": (random.Random(5), lambda g: g.random()),
    "second normal": (random.Random(5), lambda g: g.gauss(0, 1)),
    "torch": (torch.Generator(), lambda g: torch.rand(1, generator=g)),
    "second normal of torch": (torch.Generator(), lambda g: torch.randn(1, generator=g)),
    "PCG64": (np.random.default_rng(5), lambda g: g.random()),
    "half a word": (np.random.default_rng(5), lambda g: g.integers(9, dtype=np.uint32)),
    "RandomState": (np.random.RandomState(5), lambda g: g.rand()),
    "bits": (np.random.Philox(5), lambda g: g.random_raw()),
}


@pytest.mark.parametrize("kind", OWN)
def test_every_draw_from_a_generator_of_the_programs_own_is_seen(kind: str) -> None:
    generator, draw = OWN[kind]
    generators = Generators(lambda: [("own", generator)])
    seen = set()
    for _ in range(5):
        assert generators.read().cell() == generators.read().cell()
        seen.add(generators.read().by_name()["own"])
        draw(generator)
    assert len(seen) == 5
    cell = generators.read().cell()
    assert cell[8:] != bytes(8)
    generators.let_go()
    assert generators.read().cell() == cell[:8] + bytes(8)


def test_a_subclass_with_a_state_of_its_own_is_read_as_it_says() -> None:
    class Counted(random.Random):
        def getstate(self) -> Any:
            return (3, (7,) * 625, None)

    generators = Generators(lambda: [("own", Counted())])
    assert generators.read().own_digests == generators.read().own_digests


def train_and_draw(
    folder: Path, *, names: tuple[str, ...] = ("a", "b"), extra_at: int | None = None
) -> Trail:
    """Three generators made anew at each call, of which the second draws once more at a step."""
    made = {name: torch.Generator().manual_seed(5) for name in names}
    folder.mkdir()
    path = folder / "main.bin"
    watcher = Watcher(lambda: path, on_note=print, own_generators=lambda: list(made.items()))
    watcher.install()
    weight = nn.Parameter(torch.ones(2))
    optimizer = SGD([weight], lr=0.5)
    for step in range(100):
        for generator in made.values():
            torch.rand(1, generator=generator)
        if step == extra_at:
            torch.rand(1, generator=made["b"])
        optimizer.step()
    if extra_at is None:
        del made[names[-1]], generator
        optimizer.step()
    watcher.finish()
    return Trail.open(path)


def test_an_extra_draw_from_a_generator_of_the_programs_own_is_found(tmp_path: Path) -> None:
    before = train_and_draw(tmp_path / "before")
    again = train_and_draw(tmp_path / "again")
    assert compare_trails({"main": before}, {"main": again}).divergence is None
    assert before.leaves.names("own") == [(0, {"a", "b"}), (100, {"a"})]
    assert before.final is not None
    assert "a" in before.final.rng
    other = train_and_draw(tmp_path / "other", extra_at=81)
    found = compare_trails({"main": before}, {"main": other}).divergence
    assert found is not None
    assert (found.step, found.stream, found.tensors) == (81, "rng", ("b",))
    named_otherwise = train_and_draw(tmp_path / "named", names=("b", "c"), extra_at=81)
    found = compare_trails({"main": before}, {"main": named_otherwise}).divergence
    assert found is None


def test_generators_are_asked_for_anew_when_there_may_be_more(tmp_path: Path) -> None:
    own: list[tuple[str, object]] = []
    path = tmp_path / "main.bin"
    watcher = Watcher(lambda: path, on_note=print, own_generators=lambda: own)
    watcher.install()
    optimizer = SGD([nn.Parameter(torch.ones(2))], lr=0.5)
    optimizer.step()
    own.append(("late", random.Random(5)))
    optimizer.step()
    watcher.look_for_generators()
    optimizer.step()
    watcher.finish()
    assert Trail.open(path).leaves.names("own") == [(2, {"late"})]


def test_a_loss_is_kept_as_a_number_where_it_is_one(watching: Watching) -> None:
    weight = nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = SGD([weight], lr=0.0)
    backward(weight.sum() / 3)
    optimizer.step()
    torch.autograd.backward([weight.sum(), weight.sum()])
    optimizer.step()
    weight.backward(torch.ones(2, dtype=torch.float64))  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.step()
    backward(weight.sum() / 4)
    backward(weight.sum() * float("nan"))
    optimizer.step()
    losses = watching.trail().losses
    assert losses[0] == 2 / 3
    assert [is_unobserved(loss) for loss in losses] == [False, True, True, True, False]


SCRIPT = """
import random, sys
import numpy as np
import torch
from torch import nn
from manifest.pytorch.watching import Watcher

watcher = Watcher(lambda: sys.argv[1], on_note=print)
watcher.install()
random.seed(0); np.random.seed(0); torch.manual_seed(0)
data = torch.utils.data.TensorDataset(torch.randn(40, 6), torch.randn(40, 1))
loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(), nn.Linear(8, 1))
optimizer = torch.optim.Adam(model.parameters())
for step, (inputs, targets) in enumerate(loader):
    optimizer.zero_grad()
    nn.functional.mse_loss(model(inputs), targets).backward()
    if step == int(sys.argv[2]):
        with torch.no_grad():
            model[2].weight.view(torch.int32)[0, 3] ^= 1
    optimizer.step()
watcher.finish()
"""


def test_the_same_training_twice_gives_the_same_bytes_and_one_other_bit_is_found(
    tmp_path: Path,
) -> None:
    for name, step in (("one", "-1"), ("two", "-1"), ("other", "6")):
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / f"{name}.bin"), step]
        assert subprocess.run(command, check=True, capture_output=True).stdout == b""
    for suffix in (".bin", ".tensors", ".final"):
        contents = [(tmp_path / (name + suffix)).read_bytes() for name in ("one", "two")]
        assert contents[0] == contents[1]
    one, other = (Trail.open(tmp_path / f"{name}.bin") for name in ("one", "other"))
    found = compare_trails({"main": one}, {"main": other}).divergence
    assert found is not None
    assert (found.step, found.stream, found.tensors) == (6, "param", ("2.weight",))
    assert found.equal_streams == ("rng", "batch", "loss", "grad")


def test_gradient_accumulation_keeps_every_batch_and_loss(watching: Watching) -> None:
    losses = [torch.tensor([value], requires_grad=True) for value in (1.0, 2.0, 3.0)]
    optimizer = SGD(losses, lr=0.1)
    for order in ([0, 1], [1, 0], [0, 1], [0, 1, 2]):
        for index in order:
            backward(losses[index].detach().requires_grad_())
        optimizer.step()
    trail = watching.trail()
    first, swapped, again, longer = (trail.digest(step, "loss") for step in range(4))
    assert first == again
    assert len({first, swapped, longer}) == 3


def test_adversaries_step_in_turn(watching: Watching) -> None:
    generator, critic = make_model(), make_model()
    one = SGD(generator.parameters(), lr=0.1)
    two = SGD(critic.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        train(generator, one, steps=1)
        train(critic, two, steps=1)
    trail = watching.trail()
    assert trail.steps == 4
    assert trail.final is not None
    assert len(trail.final.tensors) == 8
    assert "0.weight#2" in trail.final.tensors


def test_gradients_of_a_closure_are_seen(watching: Watching) -> None:
    model = make_model()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    inputs = torch.randn(5, 4)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = model(inputs).square().mean()
        backward(loss)
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    expected = [fingerprint(p.grad)[:8] for p in model.parameters() if p.grad is not None]
    trail = watching.trail()
    assert trail.steps == 1
    assert list((trail.leaves.at(0, "grad") or {}).values()) == expected


def test_sparse_gradients_and_parameters_without_one_are_seen(watching: Watching) -> None:
    table, unused = nn.Embedding(5, 2, sparse=True), nn.Parameter(torch.zeros(1))
    optimizer = SGD([*table.parameters(), unused], lr=0.1)
    backward(table(torch.tensor([1, 1, 3])).sum())
    optimizer.step()
    leaves = watching.trail().leaves.at(0, "grad")
    assert leaves is not None
    assert [name for name, leaf in leaves.items() if leaf != bytes(8)] == ["weight"]


def test_scaled_gradients_are_seen_unscaled(watching: Watching) -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = SGD([weight], lr=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    backward(scaler.scale(weight.sum()))
    scaler.step(optimizer)
    scaler.update()
    trail = watching.trail()
    assert trail.digest(0, "grad") == fingerprint(torch.ones(2))
    assert trail.digest(0, "loss") is not None


def test_reentrant_checkpoints_are_not_losses(watching: Watching) -> None:
    from torch.utils.checkpoint import checkpoint

    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    inputs = torch.randn(5, 4, requires_grad=True)
    losses = []
    for use_reentrant in (True, False):
        saved = copy.deepcopy(model.state_dict())
        backward(checkpoint(model, inputs, use_reentrant=use_reentrant).sum())
        optimizer.step()
        model.load_state_dict(saved)
        losses.append(use_reentrant)
    trail = watching.trail()
    assert trail.digest(0, "loss") == trail.digest(1, "loss")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_code_is_watched_and_has_the_same_graphs(tmp_path: Path, backend: str) -> None:
    import torch._dynamo
    from torch._dynamo.utils import counters

    def work() -> tuple[int, int]:
        torch._dynamo.reset()
        counters.clear()
        model = make_model()
        optimizer = SGD(model.parameters(), lr=0.1)
        whole: Any = torch.compile(model, backend=backend, fullgraph=True)
        train(whole, optimizer)

        def step(inputs: Tensor) -> None:
            optimizer.zero_grad()
            torch.autograd.backward(model(inputs).square().mean())
            optimizer.step()

        compiled = torch.compile(step, backend=backend)
        for _ in range(3):
            compiled(torch.randn(5, 4))
        return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())

    watching = Watching(tmp_path)
    watching.watcher.install()
    graphs, breaks = work()
    trail = watching.trail()
    assert trail.steps == 6
    assert trail.digest(5, "loss") is not None
    graphs_without, breaks_without = work()
    assert graphs == graphs_without
    assert breaks <= breaks_without


def test_wrapped_functions_keep_name_and_signature(watching: Watching) -> None:
    wrapped: Any = torch.autograd.backward
    assert wrapped.__name__ == "backward"
    assert wrapped.__module__ == "torch.autograd"
    assert next(iter(inspect.signature(wrapped).parameters)) == "tensors"
    once = wrapped, loader_module._BaseDataLoaderIter.__next__
    watching.watcher.install()
    Watching(watching.path.parent / "elsewhere").watcher.install()
    assert (torch.autograd.backward, loader_module._BaseDataLoaderIter.__next__) == once


def test_nothing_is_kept_alive(watching: Watching) -> None:
    model = make_model()
    optimizer = Adam(model.parameters())
    train(model, optimizer)
    living = [weakref.ref(o) for o in (model, model[0], model[0].weight, optimizer)]
    del model, optimizer
    gc.collect()
    assert [reference() for reference in living] == [None] * 4
    trail = watching.trail()
    assert trail.steps == 3
    assert trail.final is not None
    assert trail.final.tensors == {}


class Unreadable(Tensor):
    def as_subclass(self, cls: Any) -> Any:
        raise RuntimeError("not for you")


def test_what_cannot_be_read_is_noted_once_and_the_rest_goes_on(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    watching.watcher.install()
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    bad: Any = torch.zeros(1).as_subclass(Unreadable)
    dataset: Any = [bad, bad]
    for _ in DataLoader(dataset, batch_size=None):
        train(model, optimizer, steps=1)
    watching.watcher.finish()
    assert [where for where, _ in watching.notes] == ["trail.batch"]
    trail = Trail.open(watching.path)
    assert trail.steps == 2
    assert trail.streams() == ("rng", "loss", "grad", "param")


def test_a_trail_that_cannot_be_written_is_noted_and_training_goes_on(tmp_path: Path) -> None:
    watching = Watching(tmp_path / "missing")
    watching.watcher.install()
    model = make_model()
    train(model, SGD(model.parameters(), lr=0.1))
    watching.watcher.finish()
    assert [where for where, _ in watching.notes] == ["trail"]
    assert isinstance(watching.notes[0][1], FileNotFoundError)


def test_an_error_of_the_program_passes_through(watching: Watching) -> None:
    with pytest.raises(RuntimeError, match="does not require grad"):
        backward(torch.zeros(1))
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)

    def closure() -> float:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        optimizer.step(closure)
    model = make_model()
    train(model, SGD(model.parameters(), lr=0.1), steps=1)
    assert watching.trail().steps == 1


def test_a_forked_child_that_trains_has_a_trail_of_its_own(tmp_path: Path) -> None:
    parent = os.getpid()
    notes: list[object] = []
    watcher = Watcher(
        lambda: tmp_path / ("main.bin" if os.getpid() == parent else "child.bin"),
        on_note=lambda where, what: notes.append((where, what)),
    )
    watcher.install()
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    torch.set_num_threads(1)
    train(model, optimizer, steps=2)
    for is_training in (True, False):
        if (child := os.fork()) == 0:
            try:
                if is_training:
                    for weight in model.parameters():
                        weight.grad = torch.ones_like(weight)
                    optimizer.step()
                watcher.finish()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
    train(model, optimizer, steps=1)
    watcher.finish()
    assert notes == []
    assert sorted(path.name for path in tmp_path.glob("*.bin")) == ["child.bin", "main.bin"]
    assert Trail.open(tmp_path / "main.bin").steps == 3
    assert Trail.open(tmp_path / "child.bin").steps == 1


def test_threads_that_train_side_by_side_write_whole_rows(watching: Watching) -> None:
    def work() -> None:
        weight = nn.Parameter(torch.ones(3))
        optimizer = SGD([weight], lr=0.1)
        for _ in range(50):
            optimizer.zero_grad()
            backward(weight.sum())
            optimizer.step()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trail = watching.trail()
    assert trail.steps == 200
    assert all(trail.digest(step, "grad") == fingerprint(torch.ones(3)) for step in range(200))


def test_the_end_is_called_when_the_last_row_is_written(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    watching = Watching(tmp_path)
    watching.watcher.install(until=2, on_until=stop)
    model = make_model()
    with pytest.raises(Stopped):
        train(model, SGD(model.parameters(), lr=0.1), steps=5)
    assert Trail.open(watching.path).steps == 2
    watching.watcher.finish()


def test_the_first_step_is_announced_once(tmp_path: Path) -> None:
    announced: list[bool] = []
    watcher = Watcher(
        lambda: tmp_path / "main.bin",
        on_note=print,
        on_first_step=lambda: announced.append(True),
    )
    watcher.install()
    model = make_model()
    assert announced == []
    train(model, SGD(model.parameters(), lr=0.1), steps=3)
    watcher.finish()
    assert announced == [True]


def test_a_step_by_hand_needs_no_optimizer(watching: Watching) -> None:
    model = make_model()
    for inputs, _ in make_loader():
        backward(model(inputs).sum())
        with torch.no_grad():
            for weight in model.parameters():
                assert weight.grad is not None
                weight.sub_(0.1 * weight.grad)
        watching.watcher.step(loss=1.5, model=model)
    trail = watching.trail()
    assert trail.steps == 3
    assert trail.streams() == STREAMS
    assert list(trail.leaves.at(0, "param") or {}) == [name for name, _ in model.named_parameters()]


def test_a_step_by_hand_adds_nothing_to_one_of_an_optimizer(watching: Watching) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        train(model, optimizer, steps=1)
        watching.watcher.step(loss=0.0, model=model)
    assert watching.trail().steps == 3


def test_what_is_left_of_a_run_with_no_step_is_kept(watching: Watching) -> None:
    for _ in make_loader():
        pass
    trail = watching.trail()
    assert trail.steps == 0
    assert trail.final is not None
    assert list(trail.final.left) == ["batch"]


def test_a_second_watcher_takes_the_place_of_the_first(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    first, second = Watching(tmp_path), Watching(tmp_path / "second")
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    first.watcher.install()
    train(model, optimizer, steps=2)
    second.watcher.install()
    train(model, optimizer, steps=1)
    assert Trail.open(first.path).final is not None
    assert (first.trail().steps, second.trail().steps) == (2, 1)


def test_names_given_to_the_optimizer_come_first(watching: Watching) -> None:
    model = make_model()
    named = [(f"mine.{name}", weight) for name, weight in model.named_parameters()]
    train(model, SGD(named, lr=0.1), steps=1)
    assert list(watching.trail().leaves.at(0, "param") or {}) == [name for name, _ in named]


def test_names_reach_from_the_outermost_module(watching: Watching) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 1, bias=False)])
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, inputs: Tensor) -> Tensor:
            out: Tensor = self.layers[1](self.layers[0](inputs)) * self.scale
            return out

    model = Net()
    train(model, SGD(model.parameters(), lr=0.1), steps=1)
    leaves = watching.trail().leaves.at(0, "param") or {}
    assert list(leaves) == [name for name, _ in model.named_parameters()]


@dataclass
class Sample:
    image: Tensor
    label: int


def digest_of(*values: object) -> bytes:
    gathering = Gathering()
    for value in values:
        gathering.add(value)
    taken = gathering.take()
    assert isinstance(taken, list)
    return taken[0]


def test_batches_of_any_nesting_are_told_apart() -> None:
    one, two = torch.ones(1), torch.zeros(1)
    different: list[object] = [
        [one, two],
        [two, one],
        [[one], two],
        [one, [two]],
        [],
        [[]],
        {"a": one, "b": two},
        {"a": two, "b": one},
        {"b": one, "a": two},
        Sample(one, 1),
        Sample(one, 2),
        np.zeros(2),
        np.zeros(2, dtype=np.float32),
        np.zeros((2, 1)),
        "ab",
        b"ab",
        ["a", "b"],
        1,
        1.0,
        True,
        None,
        {"a", "b"},
        {"a", "c"},
        [object(), 1],
        -0.0,
        0.0,
    ]
    assert len({digest_of(value) for value in different}) == len(different)


@dataclass
class Wrapped:
    inner: object


def test_a_batch_whose_content_is_hidden_is_not_called_seen() -> None:
    hidden: list[object] = [object(), [object()], {"a": object()}, Wrapped(object())]
    gathering = Gathering()
    for value in hidden:
        gathering.add(value)
        assert gathering.take() is None
    gathering.add([*hidden, 1])
    assert gathering.take() == [digest_of([*hidden, 1])]


def test_equal_batches_have_equal_digests() -> None:
    values: list[Callable[[], object]] = [
        lambda: [torch.ones(2), {"a": np.arange(3)}, "text"],
        lambda: Sample(torch.zeros(1), 3),
        lambda: (1, 2.5, None, object()),
        lambda: np.arange(6).reshape(2, 3).T,
    ]
    for make in values:
        assert digest_of(make()) == digest_of(make())


def test_a_batch_that_contains_itself_ends() -> None:
    batch: list[object] = [1]
    batch.append(batch)
    assert len(digest_of(batch)) == 16


class Event:
    def __init__(self) -> None:
        self.is_done = False

    def query(self) -> bool:
        return self.is_done

    def synchronize(self) -> None:
        self.is_done = True


def sum_of(tensor: Tensor) -> bytes:
    return xxh3_128_digest(device_sums([tensor]).tensor().numpy().tobytes(), 7)


def on_its_way(tensor: Tensor) -> Reading:
    return Reading([None], [([(0, 7)], device_sums([tensor]))])


def test_rows_wait_for_the_accelerator_in_their_order(tmp_path: Path) -> None:
    events = [Event() for _ in range(3)]
    waiting = iter(events)
    rows = Rows(transfer=lambda words: (words, next(waiting)), longest=-1)
    trail = TrailWriter(tmp_path / "main.bin")
    losses = [torch.tensor(float(step)) for step in range(3)]
    written = []
    for loss in losses:
        reading = on_its_way(loss)
        drawn = Drawn(("python",), [b"r" * 16])
        rows.add(Row(Watched(None, (), 1), drawn, None, reading, None, None), trail)
        written.append(trail.steps)
    assert written == [0, 0, 0]
    events[1].is_done = True
    rows.write(trail)
    assert trail.steps == 0
    events[0].is_done = True
    rows.write(trail)
    assert trail.steps == 2
    rows.write(trail, is_last=True)
    trail.close()
    found = Trail.open(tmp_path / "main.bin")
    assert [found.digest(step, "loss") for step in range(3)] == [sum_of(loss) for loss in losses]


def test_words_of_several_steps_are_sent_together(tmp_path: Path) -> None:
    sent: list[int] = []

    def transfer(words: Tensor) -> tuple[Tensor, Event]:
        sent.append(words.numel())
        return words, Event()

    rows, trail = Rows(transfer=transfer, longest=math.inf), TrailWriter(tmp_path / "main.bin")
    watched, drawn = Watched(None, (), 1), Drawn((), [])
    losses = [torch.tensor(float(step)) for step in range(70)]
    for loss in losses:
        rows.add(Row(watched, drawn, None, on_its_way(loss), None, None), trail)
    assert sent == [128]
    rows.write(trail, is_last=True)
    assert sent == [128, 12]
    trail.close()
    found = Trail.open(tmp_path / "main.bin")
    assert [found.digest(step, "loss") for step in range(70)] == [sum_of(loss) for loss in losses]


def test_a_fork_never_ends_what_its_parent_waits_for(tmp_path: Path) -> None:
    class Fatal(Event):
        def __del__(self) -> None:
            if os.getpid() != parent:  # as CUDA does, where it was not started
                os._exit(9)

    parent = os.getpid()
    watcher = Watcher(lambda: tmp_path / "main.bin", on_note=lambda *_: None)
    watcher._rows = Rows(transfer=lambda words: (words, Fatal()))
    row = Row(Watched(None, (), 1), Drawn((), []), None, on_its_way(torch.ones(1)), None, None)
    watcher._rows.add(row, None)
    del row
    child = os.fork()
    if child == 0:
        watcher.begin_in_fork()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_large_models_are_digested_now_and_then(watching: Watching) -> None:
    weight = nn.Parameter(torch.zeros(17 * 2**20))
    optimizer = SGD([weight], lr=0.1)
    for _ in range(19):
        optimizer.step()
    trail = watching.trail()
    observed = [step for step in range(19) if trail.digest(step, "param") is not None]
    assert observed == [*range(16), 18]
    assert all(trail.digest(step, "rng") is not None for step in range(19))


def large_steps(path: Path, *, changed_after: int | None) -> Trail:
    """Steps of a model whose parameters are fingerprinted at every third step only."""
    watcher = Watcher(lambda: path, on_note=lambda *_: None)
    watcher.install()
    weight = nn.Parameter(torch.zeros(2**24 + 1024))
    optimizer = SGD([weight], lr=0.1)
    for step in range(24):
        optimizer.step()
        if step == changed_after:
            weight.detach()[100] = 1.0
    watcher.finish()
    return Trail.open(path)


def test_a_change_in_a_large_model_is_located_between_two_of_its_fingerprints(
    tmp_path: Path,
) -> None:
    before = large_steps(tmp_path / "a.bin", changed_after=None)
    assert [step for step in range(16, 24) if before.digest(step, "param")] == [18, 21]
    after = large_steps(tmp_path / "b.bin", changed_after=18)
    found = compare_trails({"main": before}, {"main": after}).divergence
    assert found is not None
    assert (found.step, found.stream, found.since) == (21, "param", 19)
    assert found.tensors == ("group0.param0",)
