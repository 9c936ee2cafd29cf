"""Releases of PyTorch, and packages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from manifest.diffing import diff_sections

Impacts = Callable[..., dict[str, str]]
Sections = dict[str, dict[str, Any]]


@pytest.mark.parametrize(
    ("before", "after", "impact"),
    [
        ("2.13.0", "2.14.1", "certain"),
        ("2.13.0", "2.13.1", "possible"),
        ("2.13.0+cpu", "2.13.0+cu130", "possible"),
        ("2.1.0", "2.13.0", "certain"),
    ],
)
def test_releases_of_torch_differ_more_than_builds(
    impacts: Impacts, before: str, after: str, impact: str
) -> None:
    assert impacts({"packages": {"torch": before}}, {"packages": {"torch": after}}) == {
        "torch": impact
    }
    found = impacts({"settings": {"torch.version": before}}, {"settings": {"torch.version": after}})
    assert found == {"torch.version": impact}


def test_a_package_that_neither_run_imported_changes_nothing(impacts: Impacts) -> None:
    def run(version: str, imported: list[str]) -> Sections:
        return {"packages": {"numpy": version}, "code": {"imported": imported}}

    assert impacts(run("1", ["torch"]), run("2", ["torch"])) == {"numpy": "informational"}
    assert impacts(run("1", ["numpy"]), run("2", ["numpy"])) == {"numpy": "certain"}


@pytest.mark.parametrize("name", ["tqdm", "rich", "colorama", "matplotlib", "matplotlib-inline"])
def test_what_only_shows_things_changes_nothing(impacts: Impacts, name: str) -> None:
    assert impacts({"packages": {name: "1"}}, {"packages": {name: "2"}}) == {name: "informational"}


@pytest.mark.parametrize("name", ["pip", "pytest-xdist", "hypothesis", "ruff", "types-requests"])
def test_tools_of_developers_change_nothing(impacts: Impacts, name: str) -> None:
    assert impacts({"packages": {name: "1"}}, {"packages": {name: "2"}}) == {name: "informational"}


@pytest.mark.parametrize("name", ["triton", "pytorch-triton", "nvidia-cutlass-dsl", "helion"])
def test_a_package_with_kernels_matters_wherever_it_is_installed(name: str) -> None:
    imported: Sections = {"code": {"imported": []}}
    having: Sections = {"packages": {"a": "1", name: "1"}, **imported}
    lacking: Sections = {"packages": {"a": "1"}, **imported}
    for before, after in ((having, lacking), (lacking, having)):
        (found,) = diff_sections(before, after)
        assert (found.key, found.impact) == (name, "certain")
        assert "replaces some CUDA kernels" in found.reason
        assert found.source


def test_opt_einsum_matters_wherever_it_is_installed() -> None:
    (found,) = diff_sections({"packages": {"a": "1"}}, {"packages": {"a": "1", "opt-einsum": "3"}})
    assert found.impact == "certain"
    assert "torch.einsum" in found.reason
