"""Steps of every kind: what is seen of each."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from manifest.comparing import compare_trails
from manifest.numbers import is_unobserved
from manifest.pytorch.tensors import fingerprint
from manifest.pytorch.watching import Watcher
from manifest.streams import STREAMS
from manifest.trail import Trail

if TYPE_CHECKING:
    from tests.pytorch.conftest import Watching

Watch = Callable[[Path], "Watching"]
MakeModel = Callable[[], nn.Sequential]
Train = Callable[..., None]


def backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


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


def test_adversaries_step_in_turn(watching: Watching, make_model: MakeModel, train: Train) -> None:
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


def test_gradients_of_a_closure_are_seen(watching: Watching, make_model: MakeModel) -> None:
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


def test_reentrant_checkpoints_are_not_losses(watching: Watching, make_model: MakeModel) -> None:
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
def test_compiled_code_is_watched_and_has_the_same_graphs(
    tmp_path: Path, backend: str, make_model: MakeModel, train: Train, watch: Watch
) -> None:
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

    watching = watch(tmp_path)
    watching.watcher.install()
    graphs, breaks = work()
    trail = watching.trail()
    assert trail.steps == 6
    assert trail.digest(5, "loss") is not None
    graphs_without, breaks_without = work()
    assert graphs == graphs_without
    assert breaks <= breaks_without


def test_a_step_by_hand_needs_no_optimizer(watching: Watching, make_model: MakeModel) -> None:
    model = make_model()
    for (inputs,) in DataLoader(TensorDataset(torch.randn(12, 4)), batch_size=4):
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


def test_a_step_by_hand_adds_nothing_to_one_of_an_optimizer(
    watching: Watching, make_model: MakeModel, train: Train
) -> None:
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        train(model, optimizer, steps=1)
        watching.watcher.step(loss=0.0, model=model)
    assert watching.trail().steps == 3


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
