"""What is said of an optimizer before its first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from manifest.canonical import Json, canonical_bytes
from manifest.pytorch.optimizers import described
from manifest.pytorch.watching import Watcher


def model() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))


def test_an_optimizer_is_described_with_its_options_and_what_it_updates() -> None:
    facts = described(torch.optim.Adam(model().parameters(), lr=0.01, fused=True))
    assert facts["class"] == "torch.optim.adam.Adam"
    assert {name: facts[name] for name in ("lr", "betas", "fused", "foreach", "capturable")} == {
        "lr": 0.01,
        "betas": [0.9, 0.999],
        "fused": True,
        "foreach": None,
        "capturable": False,
    }
    assert (facts["groups"], facts["tensors"], facts["elements"]) == (1, 4, 3 * 4 * 9 + 4 + 8 + 2)
    assert (facts["dtypes"], facts["devices"], facts["channels_last"]) == (
        "torch.float32",
        "cpu",
        0,
    )
    assert canonical_bytes(facts)


def test_what_groups_have_otherwise_is_a_list() -> None:
    body, head = nn.Linear(2, 2), nn.Linear(2, 1)
    groups: list[dict[str, Any]] = [
        {"params": body.parameters()},
        {"params": head.parameters(), "lr": 1.0, "name": "h"},
    ]
    facts = described(torch.optim.SGD(groups, lr=0.1))
    assert (facts["lr"], facts["momentum"], facts["groups"]) == ([0.1, 1.0], 0, 2)
    assert facts["name"] == [None, "h"]


def test_a_rate_in_a_tensor_is_read_where_nothing_has_to_be_waited_for() -> None:
    here = torch.optim.Adam(model().parameters(), lr=torch.tensor(0.5))
    assert described(here)["lr"] == 0.5
    there = torch.optim.Adam(model().parameters(), lr=0.5)
    there.param_groups[0]["lr"] = torch.empty((), device="meta")
    assert described(there)["lr"] == "a tensor on meta"


def test_options_of_any_kind_are_said_without_running_code_of_theirs() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise AssertionError("asked")

    optimizer = torch.optim.SGD(model().parameters(), lr=0.1)
    optimizer.param_groups[0]["schedule"] = Odd()
    assert described(optimizer)["schedule"] == "a Odd"


@pytest.mark.parametrize(
    ("shape", "is_told"),
    [((4, 3, 3, 3), True), ((8, 1, 3, 3), True), ((8, 4, 1, 1), True), ((1, 1, 1, 1), False)],
)
def test_the_memory_format_is_told_by_strides(shape: tuple[int, ...], is_told: bool) -> None:
    def count(parameter: torch.Tensor) -> Json:
        return described(torch.optim.SGD([nn.Parameter(parameter)], lr=0.1))["channels_last"]

    assert count(torch.zeros(shape)) == 0
    strides = torch.empty_strided(
        shape, (shape[1] * shape[2] * shape[3], 1, shape[3] * shape[1], shape[1])
    ).zero_()
    assert count(strides) == int(is_told)


def test_each_optimizer_is_told_of_once_before_its_first_step(tmp_path: Path) -> None:
    told: dict[str, Any] = {}
    watcher = Watcher(
        lambda: tmp_path / "main.bin",
        on_note=lambda where, what: pytest.fail(f"{where}: {what}"),
        on_optimizer=lambda name, facts: told.setdefault(name, []).append(facts["lr"]),
    )
    watcher.install()
    optimizers = [torch.optim.SGD(model().parameters(), lr=rate) for rate in (0.1, 0.2)]
    assert told == {}, "not when they are made"
    for _ in range(3):
        for optimizer in reversed(optimizers):
            optimizer.step()
            optimizer.param_groups[0]["lr"] *= 2
    optimizers[0].add_param_group({"params": nn.Linear(1, 1).parameters()})
    optimizers[0].step()
    watcher.finish()
    assert told == {"optimizer.0": [0.2], "optimizer.1": [0.1]}
