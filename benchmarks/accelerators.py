"""What the trail adds to a step on an accelerator: `python benchmarks/accelerators.py`.

Watched and unwatched steps take turns in one process, and the device is waited for at the end of
each turn only, as a training does not wait for it at every step either.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from fingerprints import in_turns, watched_in_turns
from manifest.pytorch.sums import device_sums

_STEPS = 40
"""How many make a turn: enough that waiting for the device at its end is a small part."""

_TRANSFORMERS = ((6, 256, 8, 32, 128), (12, 768, 12, 16, 512))
"""Layers, width, heads, sequences, and tokens of each."""


def main() -> None:
    """Measure everything and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", help="another than the one that PyTorch takes by itself")
    name = parser.parse_args().device
    found = torch.accelerator.current_accelerator() if name is None else torch.device(name)
    if found is None:
        print("there is no accelerator here")
        return
    torch.manual_seed(0)
    print(f"{torch.__version__} on {described(found)}")
    with tempfile.TemporaryDirectory() as folder:
        rows = [*tiny_step(found, Path(folder)), *transformer_steps(found, Path(folder))]
    for what, figure in rows:
        print(f"{what:<62} {figure:>12}")


def described(device: torch.device) -> str:
    """The model of a device, where its kind tells it."""
    module = torch.get_device_module(device)
    return module.get_device_name(device) if hasattr(module, "get_device_name") else str(device)


def tiny_step(device: torch.device, folder: Path) -> list[tuple[str, str]]:
    """The fixed cost of a step, where the work itself is next to nothing."""
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    inputs = torch.randn(8, 16, device=device)

    def step() -> None:
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()

    base, cost = costs(step, device, folder / "tiny.bin", turns=20)
    return [
        ("a step of a tiny MLP, not watched", f"{base * 1e6:.0f} µs"),
        ("  cost of the trail (4 parameters)", f"{cost * 1e6:.0f} µs"),
    ]


def transformer_steps(device: torch.device, folder: Path) -> list[tuple[str, str]]:
    """The share of a real step, and how fast the sums of its parameters are made."""
    rows = []
    for layers, width, heads, sequences, tokens in _TRANSFORMERS:
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, batch_first=True, dropout=0.0, norm_first=True
        )
        model = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        inputs = torch.randn(sequences, tokens, width, device=device)
        step = mixed_precision_step(model, optimizer, inputs)
        base, cost = costs(step, device, folder / f"{width}.bin", turns=5)
        parameters = list(model.parameters())
        size = sum(parameter.nbytes for parameter in parameters)
        rate = size / duration_of_sums(parameters, device) / 1e9
        rows += [
            (f"a step of a transformer, {size / 4e6:.0f} M parameters", f"{base * 1e3:.1f} ms"),
            ("  cost of the trail", f"{cost / base:.1%}"),
            (f"  sums of its {len(parameters)} parameters", f"{rate:.0f} GB/s"),
        ]
    return rows


def mixed_precision_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, inputs: torch.Tensor
) -> Callable[[], None]:
    """A step in bfloat16, as accelerators are used."""

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(inputs.device.type, torch.bfloat16):
            loss = model(inputs).float().square().mean()
        loss.backward()
        optimizer.step()

    return step


def costs(
    step: Callable[[], None], device: torch.device, path: Path, *, turns: int
) -> tuple[float, float]:
    """Seconds of a step by itself, and what watching it adds."""

    def steps() -> None:
        for _ in range(_STEPS):
            step()
        wait_for(device)

    watched, free = watched_in_turns(steps, path, turns=turns)
    return min(free) / _STEPS, (min(watched) - min(free)) / _STEPS


def duration_of_sums(tensors: list[nn.Parameter], device: torch.device) -> float:
    """Seconds for the sums of all tensors, until the device is done."""

    def sums() -> None:
        device_sums(tensors)
        wait_for(device)

    times, _ = in_turns(sums, lambda: wait_for(device), turns=15)
    return min(times)


def wait_for(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


if __name__ == "__main__":
    main()
