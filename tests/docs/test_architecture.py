"""ARCHITECTURE.md tells the truth about the modules."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGES = (
    "manifest",
    "server/manifest_server",
    "alembic/manifest_migrations",
    "client/manifest_client",
)
ENTRY = re.compile(r"^\s*- `(?P<path>[\w/]+\.py)` – (?P<sentence>.+)$", re.MULTILINE)


def first_line(file: Path) -> str:
    """The first line of a module's docstring, or nothing."""
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


@pytest.fixture(scope="module")
def modules(checkout: Path) -> dict[str, str]:
    """Each module's path and opening sentence; the scripts of migrations are told as one folder."""
    return {
        file.relative_to(checkout).as_posix(): first_line(file)
        for package in PACKAGES
        for file in sorted((checkout / package).rglob("*.py"))
        if file.parent.name != "versions"
    }


@pytest.fixture(scope="module")
def code_map(checkout: Path) -> dict[str, str]:
    text = (checkout / "ARCHITECTURE.md").read_text(encoding="utf-8")
    return {entry["path"]: entry["sentence"].strip() for entry in ENTRY.finditer(text)}


def test_every_module_opens_with_a_sentence(modules: dict[str, str]) -> None:
    assert [path for path, sentence in modules.items() if not sentence.endswith(".")] == []


def test_the_code_map_lists_every_module_and_no_other(
    modules: dict[str, str], code_map: dict[str, str]
) -> None:
    assert sorted(code_map) == sorted(modules)


def test_the_code_map_quotes_each_module(modules: dict[str, str], code_map: dict[str, str]) -> None:
    wrong = {path: modules[path] for path in modules if code_map.get(path) != modules[path]}
    assert wrong == {}
