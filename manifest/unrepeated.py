"""What no replay repeats: entropy of the system, the order of threads and of processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from manifest.models import Divergence, Manifest

_COMPUTED = frozenset({"loss", "grad", "param"})
_REPLACED: Final = "`torch.use_deterministic_algorithms(True)` replaces them"


class Unordered(NamedTuple):
    """What computes in an order that no replay repeats."""

    what: str
    why: str
    cure: str = ""

    def __str__(self) -> str:
        return f"{self.why}: {self.cure}" if self.cure else self.why


def unrepeated(
    manifest: Manifest, divergence: Divergence | None, *, is_explained: bool
) -> Iterator[str]:
    """Name, in sentences, what of a run can have parted it from its replay.

    Args:
        manifest: The recorded run.
        divergence: Where they parted.
        is_explained: Whether something that was recorded differs and can explain it.
    """
    yield from _os_entropy(manifest)
    if is_explained or divergence is None or divergence.stream not in _COMPUTED:
        return
    yield from map(str, unordered(manifest))


def unordered(manifest: Manifest) -> Iterator[Unordered]:
    """Name what of a run has no order that a replay repeats."""
    yield from _side_by_side(manifest)
    on = devices(manifest)
    if not on or "cpu" in on:
        yield from _threads(manifest)
    if "cuda" in on:
        yield from _cuda(manifest)


def _os_entropy(manifest: Manifest) -> Iterator[str]:
    seeds = manifest.sections.get("seeds", {})
    places = seeds.get("os_entropy_uses") or {}
    if places and not seeds.get("pinned_os_entropy"):
        yield (
            f"the program drew entropy from the operating system at "
            f"{', '.join(sorted(places)[:3])}, which is not repeated unless it is recorded with "
            "--pin-entropy"
        )


def _side_by_side(manifest: Manifest) -> Iterator[Unordered]:
    trained = [
        name
        for name, process in manifest.processes.items()
        if process.rank is None and process.trail is not None and process.trail.steps
    ]
    if len(trained) > 1:
        names = ", ".join(sorted(trained)[:3])
        yield Unordered(
            "order of processes",
            f"{len(trained)} processes trained side by side ({names}): where they share memory, "
            "which of them comes first is not repeated",
        )


def _threads(manifest: Manifest) -> Iterator[Unordered]:
    settings = manifest.sections.get("settings", {})
    threads = settings.get("torch.num_threads")
    if settings.get("torch.deterministic.mode") == 0 and isinstance(threads, int) and threads > 1:
        yield Unordered(
            "order of threads",
            f"{threads} threads computed, and operations that add up in the order in which threads "
            "come, such as the gradient of an index, were allowed",
            _REPLACED,
        )


def devices(manifest: Manifest) -> set[str]:
    """The kinds of devices on which optimizers updated parameters, as far as they are known."""
    optimizers = manifest.sections.get("training", {}).values()
    named = (each.get("devices") for each in optimizers if isinstance(each, dict))
    return {kind for names in named if isinstance(names, str) for kind in names.split(", ")}


def _cuda(manifest: Manifest) -> Iterator[Unordered]:
    settings = manifest.sections.get("settings", {})
    if settings.get("torch.backends.cudnn.benchmark"):
        yield Unordered(
            "cuDNN benchmarking",
            "cuDNN chose its algorithms by how fast they were when they were tried, and another "
            "choice computes other bits",
            "`torch.backends.cudnn.benchmark = False`",
        )
    if settings.get("torch.deterministic.mode") == 0:
        is_cudnn_fixed = settings.get("torch.backends.cudnn.deterministic")
        kinds = "an index" if is_cudnn_fixed else "a convolution or an index"
        yield Unordered(
            "order of threads",
            "operations that add up in the order in which threads of the GPU come, such as the "
            f"gradient of {kinds}, were allowed",
            _REPLACED,
        )
