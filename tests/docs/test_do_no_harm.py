"""docs/do-no-harm.md names tests, and they are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

NAMED = re.compile(r"`(?P<path>tests/[\w/]+\.py)::(?P<test>\w+)`")


@pytest.fixture(scope="module")
def page(checkout: Path) -> str:
    return (checkout / "docs" / "do-no-harm.md").read_text(encoding="utf-8")


def functions_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_test_that_the_page_names_exists(page: str, checkout: Path) -> None:
    named = [(found["path"], found["test"]) for found in NAMED.finditer(page)]
    assert len(named) > 20
    assert [name for name in named if name[1] not in functions_in(checkout / name[0])] == []


def test_every_promise_names_a_test(page: str) -> None:
    table = page.partition("| promise | test |")[2].partition("\n\n")[0].splitlines()[2:]
    assert [row for row in table if not NAMED.search(row)] == []


@pytest.mark.parametrize("name", ["test_do_no_harm", "test_hostile_places", "test_untouched"])
def test_every_test_of_the_suite_is_on_the_page(name: str, page: str, checkout: Path) -> None:
    path = f"tests/end_to_end/{name}.py"
    named = {found["test"] for found in NAMED.finditer(page) if found["path"] == path}
    tests = {test for test in functions_in(checkout / path) if test.startswith("test_")}
    assert tests - named == set()


def test_the_readme_leads_to_the_page(checkout: Path) -> None:
    assert "(docs/do-no-harm.md)" in (checkout / "README.md").read_text(encoding="utf-8")
