"""What a run ran on, in a few words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from manifest.canonical import Json
from manifest.describing import describe

_TELLING: Final = ("cpu.model", "cpu.signature", "cpu.count")


def machine(hardware: Mapping[str, Json]) -> str:
    """Name the accelerators and the processor; nothing where nothing is known.

    Example:
        >>> machine({"gpu.0.name": "H100", "gpu.1.name": "H100", "cpu.model": "EPYC"})
        '2 × H100 · EPYC'
    """
    gpus = Counter(describe(value) for _, value in _gpus(hardware, "name"))
    parts = [f"{count} × {name}" if count > 1 else name for name, count in gpus.items()]
    if isinstance(model := hardware.get("cpu.model"), str):
        parts.append(model)
    if isinstance(count := hardware.get("cpu.count"), int):
        parts.append(f"{count} processor{'s' if count != 1 else ''}")
    return " · ".join(parts)


def count_machines(all_hardware: Sequence[Mapping[str, Json]]) -> int:
    """How many machines these are at least: machines that are alike look like one."""
    return len({identity(hardware) for hardware in all_hardware if hardware})


def identity(hardware: Mapping[str, Json]) -> tuple[str, ...]:
    """What tells a machine from others, as far as it was recorded."""
    processor = [describe(hardware.get(key)) for key in _TELLING]
    return (*processor, *sorted(describe(value) for _, value in _gpus(hardware, "uuid")))


def _gpus(hardware: Mapping[str, Json], what: str) -> list[tuple[str, Json]]:
    return [
        (key, value)
        for key, value in hardware.items()
        if key.startswith("gpu.") and key.endswith(f".{what}") and isinstance(value, str)
    ]
