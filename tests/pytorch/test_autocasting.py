"""Autocast regions are noticed where they are entered, in whatever form."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from manifest.pytorch import autocasting

Seen = list[tuple[str, str]]


@pytest.fixture
def seen() -> Iterator[Seen]:
    seen: Seen = []
    autocasting.watch_autocast(lambda device, precision: seen.append((device, precision)))
    yield seen
    autocasting.watch_autocast(lambda device, precision: None)


def product() -> torch.Tensor:
    return torch.ones(2, 2) @ torch.ones(2, 2)


def test_each_precision_is_told_of_once(seen: Seen) -> None:
    for _ in range(3):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert product().dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.float16):
        assert product().dtype == torch.float16
    assert seen == [("cpu", "torch.bfloat16"), ("cpu", "torch.float16")]


def test_a_region_that_is_switched_off_is_none(seen: Seen) -> None:
    with torch.autocast("cpu", enabled=False):
        assert product().dtype == torch.float32
    assert seen == []


def test_a_decorated_function_is_a_region(seen: Seen) -> None:
    assert torch.autocast("cpu")(product)().dtype == torch.bfloat16
    assert seen == [("cpu", "torch.bfloat16")]


def test_compiled_code_is_a_region_and_stays_one_graph(seen: Seen) -> None:
    def function(tensor: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return tensor @ tensor

    compiled = torch.compile(function, backend="eager", fullgraph=True)
    assert compiled(torch.ones(2, 2)).dtype == torch.bfloat16
    assert seen == [("cpu", "torch.bfloat16")]


def test_a_listener_that_fails_does_not_reach_the_program() -> None:
    def fail(device: str, precision: str) -> None:
        raise OSError(device, precision)

    autocasting.watch_autocast(fail)
    with torch.autocast("cpu"):
        assert product().dtype == torch.bfloat16
