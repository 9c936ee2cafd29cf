"""Optimizers are described once each, by what decides their steps."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch.optim import SGD, Adam

from manifest.catalogue import settings_of
from manifest.pytorch.optimizers import Optimizers
from manifest.pytorch.watching import Watcher


def test_an_optimizer_is_described_by_its_class_kernels_and_format() -> None:
    model = torch.nn.Conv2d(2, 1, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizers = Optimizers()
    first = optimizers.describe(Adam([{"params": model.parameters(), "fused": True}], lr=0.1))
    assert first == {
        "optimizer.0.class": "torch.optim.adam.Adam",
        "optimizer.0.foreach": [None],
        "optimizer.0.fused": [True],
        "optimizer.0.channels_last": True,
    }
    second = optimizers.describe(SGD([torch.ones(1)], lr=0.1, foreach=False))
    assert second["optimizer.1.foreach"] == [False]
    assert second["optimizer.1.channels_last"] is None


def test_the_catalogue_knows_what_is_recorded_of_an_optimizer_and_no_more() -> None:
    keys = Optimizers().describe(SGD([torch.ones(1)], lr=0.1))
    known = [setting.key for setting in settings_of("optimizer")]
    assert all(any(fnmatchcase(key, each) for each in known) for key in keys)
    assert all(any(fnmatchcase(key, each) for key in keys) for each in known)


def test_of_very_many_optimizers_the_first_are_described() -> None:
    optimizers = Optimizers()
    found = [optimizers.describe(SGD([torch.ones(1)], lr=0.1)) for _ in range(20)]
    assert [bool(each) for each in found] == [True] * 16 + [False] * 4


def test_each_optimizer_that_steps_is_told_once(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    watcher = Watcher(lambda: tmp_path / "t.bin", on_note=print, on_settings=told.append)
    watcher.install()
    weight = torch.nn.Parameter(torch.ones(2))
    first, second = SGD([weight], lr=0.1), Adam([weight])
    for optimizer in (first, second, first, second):
        weight.grad = torch.ones(2)
        optimizer.step()
    first.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
    first.step()
    watcher.finish()
    kinds = [each[f"optimizer.{n}.class"] for n, each in enumerate(told)]
    assert kinds == ["torch.optim.sgd.SGD", "torch.optim.adam.Adam"]
