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


def editable(code: dict[str, Any] | None = None, **facts: object) -> Sections:
    origins = {"lib": {"url": "file:///lib", "editable": True, **facts}}
    return {"environment": {"packages.origins": origins}, "code": code or {}}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (
            {"commit": "1", "tree": "a", "dirty": False},
            {"commit": "2", "tree": "b", "dirty": False},
            {"commit": "possible", "tree": "informational"},
        ),
        (
            {"commit": "1", "tree": "a", "dirty": False},
            {"commit": "1", "tree": "b", "dirty": True},
            {"dirty": "possible", "tree": "possible"},
        ),
        (
            {"commit": "1", "tree": "a", "dirty": False},
            {"commit": "2", "tree": "a", "dirty": False},
            {"commit": "informational"},
        ),
        (
            {"url": "file:///lib", "tree": "a"},
            {"url": "file:///elsewhere", "tree": "a"},
            {"url": "informational"},
        ),
        ({"url": "file:///lib"}, {"url": "file:///elsewhere"}, {"url": "possible"}),
    ],
)
def test_a_package_from_a_folder_is_its_commit_and_changes(
    impacts: Impacts, before: Sections, after: Sections, expected: dict[str, str]
) -> None:
    found = impacts(editable(**before), editable(**after))
    assert found == {f"packages.origins.lib.{key}": impact for key, impact in expected.items()}


def test_the_source_that_ran_says_more_than_where_it_came_from(impacts: Impacts) -> None:
    def run(commit: str, digest: str) -> Sections:
        return editable({"installed": {"lib": {"a.py": digest}}}, commit=commit, tree=commit)

    origins = {"packages.origins.lib.commit", "packages.origins.lib.tree"}
    assert impacts(run("1", "x"), run("2", "x")) == dict.fromkeys(origins, "informational")
    assert impacts(run("1", "x"), run("2", "y")) == {
        **dict.fromkeys(origins, "informational"),
        "installed.lib.a.py": "certain",
    }


def test_an_origin_of_what_neither_run_imported_changes_nothing(impacts: Impacts) -> None:
    code: dict[str, Any] = {"imported": ["torch"]}
    found = impacts(editable(code, commit="1"), editable(code, commit="2"))
    assert found == {"packages.origins.lib.commit": "informational"}
    other: Sections = {"environment": {"packages.origins": {}}, "code": {"imported": ["lib"]}}
    found = {key: value for key, value in impacts(editable(code), other).items() if "lib" in key}
    assert found == dict.fromkeys(
        ("packages.origins.lib.url", "packages.origins.lib.editable"), "possible"
    )
