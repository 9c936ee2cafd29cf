"""What fingerprints and the trail cost: `python benchmarks/fingerprints.py`.

Both sides of each figure are measured in turns in one run, on the same work, and the least time of
each is taken, as other work on the machine can only add to it. One thread: waiting for a second one
on a busy machine would drown what is measured.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import xxhash
from torch import Tensor, nn

from manifest.comparing import compare_trails
from manifest.pytorch import hooks
from manifest.pytorch.tensors import fingerprint_many
from manifest.pytorch.watching import Watcher
from manifest.trail import Trail, TrailWriter

_STATE_MEGABYTES = 128


def main() -> None:
    """Measure everything and print one table."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            *throughput(),
            *cost_of_a_tiny_step(Path(folder)),
            *cost_of_a_transformer_step(Path(folder)),
            *comparison(Path(folder)),
        ]
    for what, found, goal in rows:
        print(f"{what:<62} {found:>12}   {goal}")


def throughput() -> list[tuple[str, str, str]]:
    """Fingerprints of a state dict beside the bare digest of the same bytes."""
    state = state_dict(_STATE_MEGABYTES * 2**20)
    flat = torch.cat([tensor.view(-1) for tensor in state])
    size = flat.nbytes
    raw_view = flat.numpy().data.cast("B")
    ours, raw = in_turns(
        lambda: fingerprint_many(state), lambda: xxhash.xxh3_128_digest(raw_view), turns=30
    )
    ours_rate, raw_rate = size / min(ours) / 1e9, size / min(raw) / 1e9
    return [
        ("bare xxh3_128 of 128 MB", f"{raw_rate:.1f} GB/s", ""),
        (f"fingerprint_many of {len(state)} tensors, 128 MB", f"{ours_rate:.1f} GB/s", ""),
        ("  of the bare digest", f"{ours_rate / raw_rate:.0%}", "goal ≥ 70 %"),
    ]


def cost_of_a_tiny_step(folder: Path) -> list[tuple[str, str, str]]:
    """The fixed cost of a step, where the work itself is next to nothing."""
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    inputs, targets = torch.randn(8, 16), torch.randn(8, 1)

    def steps() -> None:
        for _ in range(10):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    watched, free = watched_in_turns(steps, folder / "tiny.bin", turns=1500)
    cost = (min(watched) - min(free)) / 10
    return [
        ("a step of a tiny MLP, not watched", f"{min(free) * 1e5:.0f} µs", ""),
        ("  cost of the trail (4 parameters)", f"{cost * 1e6:.1f} µs", "goal ≤ 50 µs"),
    ]


def cost_of_a_transformer_step(folder: Path) -> list[tuple[str, str, str]]:
    """The share of a real step."""
    layer = nn.TransformerEncoderLayer(384, 6, 1536, batch_first=True, dropout=0.0)
    model = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    inputs = torch.randn(8, 128, 384)
    millions = sum(p.numel() for p in model.parameters()) / 1e6

    def step() -> None:
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()

    watched, free = watched_in_turns(step, folder / "transformer.bin", turns=8)
    base = min(free)
    cost = min(watched) - base
    return [
        (f"a step of a transformer, {millions:.1f} M parameters", f"{base * 1e3:.0f} ms", ""),
        ("  cost of the trail, by difference", f"{cost / base:.1%}", "goal ≤ 2 %"),
        ("  cost of the trail, hooks alone", f"{hooks_alone(optimizer) / base:.1%}", ""),
    ]


def hooks_alone(optimizer: torch.optim.Optimizer) -> float:
    """Seconds to digest the gradients and parameters of an optimizer."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    tensors: list[Tensor] = [*parameters, *(p.grad for p in parameters if p.grad is not None)]
    times, _ = in_turns(lambda: fingerprint_many(tensors), lambda: None, turns=15)
    return min(times)


def comparison(folder: Path) -> list[tuple[str, str, str]]:
    """Find the one different step of a million, and say what a fingerprint takes on disk."""
    steps = 1_000_000
    paths = [folder / "before.bin", folder / "after.bin"]
    for path in paths:
        trail = TrailWriter(path)
        for step in range(steps):
            row = [xxhash.xxh3_128_digest(step.to_bytes(8, "little"))] * 5
            if path is paths[1] and step == steps - 2:
                row[4] = row[4][::-1]
            trail.append(*row)
        trail.close()
    size = sum(file.stat().st_size for file in folder.glob("before.*"))

    def compare() -> None:
        before, after = (Trail.open(path) for path in paths)
        found = compare_trails({"main": before}, {"main": after}).divergence
        assert found is not None
        assert found.step == steps - 2

    by_segments, _ = in_turns(compare, lambda: None, turns=9)
    for path in paths:
        path.with_suffix(".segments").unlink()
    by_rows, _ = in_turns(compare, lambda: None, turns=5)
    return [
        (
            "comparing two trails of 1,000,000 steps",
            f"{min(by_segments) * 1e3:.1f} ms",
            "goal ≤ 10 ms",
        ),
        ("  where every row has to be read", f"{min(by_rows) * 1e3:.0f} ms", ""),
        ("room for a fingerprint of a step", f"{size / steps / 5:.1f} bytes", "goal ≤ 20"),
    ]


def state_dict(size: int) -> list[Tensor]:
    """Tensors of many sizes, as a ResNet has them, adding up to `size` bytes."""
    tensors: list[Tensor] = []
    for _ in range(32):
        tensors += [torch.randn(64), torch.randn(64), torch.randn(256, 64), torch.randn(512, 512)]
    left = size // 4 - sum(tensor.numel() for tensor in tensors)
    return [*tensors, *(torch.randn(left // 32) for _ in range(32))]


def watched_in_turns(
    work: Callable[[], None], path: Path, *, turns: int
) -> tuple[list[float], list[float]]:
    """Seconds of some work with and without a watcher that listens."""
    trail = iter([path])
    watcher = Watcher(lambda: next(trail), on_note=print)
    watched, free = [], []
    work()
    for _ in range(turns):
        watcher.install()
        watched.append(seconds(work))
        hooks.stop_listening(watcher)
        free.append(seconds(work))
    watcher.finish()
    return watched, free


def in_turns(
    one: Callable[[], object], other: Callable[[], object], *, turns: int
) -> tuple[list[float], list[float]]:
    """Seconds of both, measured alternately."""
    one()
    other()
    pairs = [(seconds(one), seconds(other)) for _ in range(turns)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
