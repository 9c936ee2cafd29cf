"""Watching a program train: what is seen, and that the program is none the worse for it."""

from __future__ import annotations

import gc
import inspect
import os
import random
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data import dataloader as loader_module

from manifest.comparing import compare_trails
from manifest.pytorch.tensors import fingerprint, fingerprint_many
from manifest.pytorch.watching import Watcher
from manifest.streams import STREAMS
from manifest.trail import Trail

if TYPE_CHECKING:
    from tests.pytorch.conftest import Watching

Watch = Callable[[Path], "Watching"]
MakeModel = Callable[[], nn.Sequential]
Train = Callable[..., None]


def make_loader() -> DataLoader[tuple[Tensor, ...]]:
    torch.manual_seed(0)
    return DataLoader(TensorDataset(torch.randn(12, 4), torch.randn(12, 1)), batch_size=4)


def backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def test_every_stream_is_seen_at_every_step(watching: Watching, make_model: MakeModel) -> None:
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


def test_a_program_gives_the_same_bits_with_and_without(
    tmp_path: Path, make_model: MakeModel, watch: Watch
) -> None:
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
    watching = watch(tmp_path)
    watching.watcher.install()
    watched, drawn_watched = weights_after(work), drawn()
    assert watching.trail().steps == 3
    assert watched == without
    assert drawn_watched == drawn_without


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
for step, (inputs, targets) in enumerate(loader):
    model.zero_grad()
    loss = nn.functional.mse_loss(model(inputs), targets)
    loss.backward()
    with torch.no_grad():
        if step == int(sys.argv[2]):
            model[2].weight.view(torch.int32)[0, 3] ^= 1
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
    watcher.step(loss=loss, model=model)  # an optimizer would import the compiler
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


def test_wrapped_functions_keep_name_and_signature(watching: Watching, watch: Watch) -> None:
    wrapped: Any = torch.autograd.backward
    assert wrapped.__name__ == "backward"
    assert wrapped.__module__ == "torch.autograd"
    assert next(iter(inspect.signature(wrapped).parameters)) == "tensors"
    once = wrapped, loader_module._BaseDataLoaderIter.__next__
    watching.watcher.install()
    watch(watching.path.parent / "elsewhere").watcher.install()
    assert (torch.autograd.backward, loader_module._BaseDataLoaderIter.__next__) == once


def test_nothing_is_kept_alive(watching: Watching, make_model: MakeModel, train: Train) -> None:
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


def test_what_cannot_be_read_is_noted_once_and_the_rest_goes_on(
    tmp_path: Path, make_model: MakeModel, train: Train, watch: Watch
) -> None:
    watching = watch(tmp_path)
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


def test_a_trail_that_cannot_be_written_is_noted_and_training_goes_on(
    tmp_path: Path, make_model: MakeModel, train: Train, watch: Watch
) -> None:
    watching = watch(tmp_path / "missing")
    watching.watcher.install()
    model = make_model()
    train(model, SGD(model.parameters(), lr=0.1))
    watching.watcher.finish()
    assert [where for where, _ in watching.notes] == ["trail"]
    assert isinstance(watching.notes[0][1], FileNotFoundError)


def test_an_error_of_the_program_passes_through(
    watching: Watching, make_model: MakeModel, train: Train
) -> None:
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


def test_a_forked_child_that_trains_has_a_trail_of_its_own(
    tmp_path: Path, make_model: MakeModel, train: Train
) -> None:
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


def test_the_end_is_called_when_the_last_row_is_written(
    tmp_path: Path, make_model: MakeModel, train: Train, watch: Watch
) -> None:
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    watching = watch(tmp_path)
    watching.watcher.install(until=2, on_until=stop)
    model = make_model()
    with pytest.raises(Stopped):
        train(model, SGD(model.parameters(), lr=0.1), steps=5)
    assert Trail.open(watching.path).steps == 2
    watching.watcher.finish()


def test_the_first_step_is_announced_once(
    tmp_path: Path, make_model: MakeModel, train: Train
) -> None:
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


def test_what_is_left_of_a_run_with_no_step_is_kept(watching: Watching) -> None:
    for _ in make_loader():
        pass
    trail = watching.trail()
    assert trail.steps == 0
    assert trail.final is not None
    assert list(trail.final.left) == ["batch"]


def test_a_second_watcher_takes_the_place_of_the_first(
    tmp_path: Path, make_model: MakeModel, train: Train, watch: Watch
) -> None:
    (tmp_path / "second").mkdir()
    first, second = watch(tmp_path), watch(tmp_path / "second")
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    first.watcher.install()
    train(model, optimizer, steps=2)
    second.watcher.install()
    train(model, optimizer, steps=1)
    assert Trail.open(first.path).final is not None
    assert (first.trail().steps, second.trail().steps) == (2, 1)
