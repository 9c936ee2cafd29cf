"""Accelerators that compute, and draw random numbers, otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from manifest.diffing import diff_sections

Sections = dict[str, dict[str, Any]]


def run(cores: int, capability: str | None = "9.0", **more: Any) -> Sections:
    known = {} if capability is None else {"gpu.0.capability": capability}
    return {"hardware": {"gpu.0.cores": cores, **known, **more}}


def test_the_number_of_multiprocessors_changes_kernels_and_random_numbers() -> None:
    (found,) = diff_sections(run(132 * 128), run(114 * 128))
    assert (found.key, found.impact) == ("gpu.0.cores", "certain")
    assert "number of multiprocessors" in found.reason
    assert f"a tensor of more than {114 * 2048} elements" in found.reason
    assert found.source.startswith("https://")


def test_of_an_unknown_architecture_no_number_is_told() -> None:
    for before, after in ((run(100, "99.0"), run(200, "99.0")), (run(1, None), run(2, None))):
        (found,) = diff_sections(before, after)
        assert "a tensor of many elements" in found.reason


@pytest.mark.parametrize(
    ("key", "before", "after", "impact"),
    [
        ("gpu.0.mig", False, True, "certain"),
        ("gpu.0.name", "NVIDIA H100", "NVIDIA H200", "certain"),
        ("gpu.0.capability", "8.0", "9.0", "certain"),
        ("gpu.driver", "550.90", "550.127", "possible"),
        ("gpu.0.uuid", "GPU-0", "GPU-1", "informational"),
        ("gpu.0.power_limit_mw", 1, 2, "performance"),
    ],
)
def test_what_else_is_known_of_a_gpu(key: str, before: Any, after: Any, impact: str) -> None:
    (found,) = diff_sections({"hardware": {key: before}}, {"hardware": {key: after}})
    assert (found.impact, bool(found.reason), bool(found.source)) == (impact, True, True)
