"""constraints.txt: everything that an installation brings, at one version each."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[0-9][a-z0-9.]*)")

OF_CUDA = re.compile(r"(nvidia|cuda)-|triton$")


@pytest.fixture(scope="module")
def lines(checkout: Path) -> list[str]:
    return (checkout / "constraints.txt").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def wanted(checkout: Path) -> list[Requirement]:
    """What the project names itself: to be built, used, demonstrated and tested."""
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    groups = project["dependency-groups"].values()
    named = [line for group in groups for line in group if isinstance(line, str)]
    named += project["build-system"]["requires"] + project["project"]["dependencies"]
    return [Requirement(line) for line in named]


def test_a_pin_is_a_name_and_one_exact_version(lines: list[str]) -> None:
    assert [line for line in lines if not PIN.fullmatch(line)] == []


def test_pins_are_sorted_and_each_is_said_once(lines: list[str]) -> None:
    names = [line.partition("==")[0] for line in lines]
    assert names == sorted(set(names))


def test_everything_that_is_installed_is_pinned(
    lines: list[str], wanted: list[Requirement], brought_by: Callable[..., set[str]]
) -> None:
    names = {line.partition("==")[0] for line in lines}
    # A build of PyTorch for CUDA brings more, each at the one version that it names.
    found = brought_by(wanted) - names
    assert {name for name in found if not OF_CUDA.match(name)} == set()


def test_torch_is_pinned_to_the_version_that_is_tested(lines: list[str]) -> None:
    assert "torch==2.13.0" in lines
