"""docs/api.md is what the signatures and docstrings of the package say.

A change that is meant: REWRITE_GOLDEN=1 pytest tests/docs/test_api.py
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import manifest
from manifest import errors
from manifest.restoring import RestoredItem

HEAD: Final = """\
# The Python API

Everything that `import manifest` gives. It imports the standard library and xxhash alone, so a
program that trains pays for nothing else. Where recording is off or could not begin, each call does
nothing.
"""
ORDER: Final = (
    manifest.record,
    manifest.Run,
    manifest.replay,
    manifest.RestoreReport,
    RestoredItem,
)
WIDTH: Final = 88
Function = ast.FunctionDef


def definition(thing: Any) -> tuple[str, ast.ClassDef | Function]:
    """Its name as a program writes it, and where it is defined: the last of overloads."""
    module = importlib.import_module(thing.__module__)
    tree = ast.parse(inspect.getsource(module))
    found = [
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef | Function) and node.name == thing.__name__
    ]
    is_public = getattr(manifest, thing.__name__, None) is thing
    return ("manifest." if is_public else "") + thing.__name__, found[-1]


def signature(name: str, function: Function) -> str:
    arguments = ast.unparse(function.args).removeprefix("self").removeprefix(", ")
    parts = re.split(r", (?![^\[]*\])", arguments) if arguments else []
    parts = [re.sub(r"^(\w+: [^=]+)=", r"\1 = ", part) for part in parts]
    returns = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    line = f"{name}({', '.join(parts)}){returns}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{name}(", *(f"    {part}," for part in parts), f"){returns}"])


def told(docstring: str) -> Iterator[str]:
    """A docstring in Google's form, as Markdown."""
    for part in re.split(
        r"\n\n(?=(?:Args|Returns|Raises|Example):\n)", inspect.cleandoc(docstring)
    ):
        head, _, body = part.partition(":\n")
        if head not in ("Args", "Returns", "Raises", "Example"):
            yield as_written(part)
        elif head == "Returns":
            yield "*Returns:* " + as_written(inspect.cleandoc(body))
        elif head == "Example":
            lines = re.sub(r" *# doctest: .*|>>> ", "", inspect.cleandoc(body))
            yield f"*Not run by the tests: a line out of a program.*\n\n```python\n{lines}\n```"
        else:
            items = re.split(r"\n(?=\S)", inspect.cleandoc(body))
            yield f"*{ {'Args': 'Arguments'}.get(head, head) }:*\n\n" + "\n".join(map(item, items))


def item(text: str) -> str:
    name, _, words = " ".join(text.split()).partition(": ")
    return f"- `{name}`: {as_written(words)}"


def as_written(text: str) -> str:
    return text.replace("``", "`")


def attributes(node: ast.ClassDef) -> Iterator[str]:
    """What objects have: properties, fields, and what `__init__` sets and describes."""
    for each in node.body:
        if isinstance(each, Function) and each.name == "__init__":
            yield from described(each.body)
        elif isinstance(each, Function) and is_property(each) and not each.name.startswith("_"):
            assert each.returns is not None
            words = " ".join((ast.get_docstring(each) or "").split())
            yield f"- `{each.name}: {ast.unparse(each.returns)}` – {words}"
    yield from described(node.body)


def described(body: list[ast.stmt]) -> Iterator[str]:
    for each, after in zip(body, [*body[1:], None], strict=True):
        words = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            words = " – " + " ".join(as_written(str(after.value.value)).split())
        if isinstance(each, ast.AnnAssign):
            yield f"- `{ast.unparse(each.target)}: {ast.unparse(each.annotation)}`{words}"
        elif isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Attribute) and words:
            yield f"- `{each.targets[0].attr}`{words}"


def is_property(function: Function) -> bool:
    return any(ast.unparse(each) == "property" for each in function.decorator_list)


def of_function(level: str, name: str, function: Function) -> Iterator[str]:
    yield f"{level} {name}"
    yield f"```python\n{signature(name, function)}\n```"
    yield from told(ast.get_docstring(function) or "")


def of_class(name: str, node: ast.ClassDef) -> Iterator[str]:
    yield f"## {name}"
    yield from told(ast.get_docstring(node) or "")
    if found := list(attributes(node)):
        yield "\n".join(found)
    for each in node.body:
        if isinstance(each, Function) and not each.name.startswith("_") and not is_property(each):
            yield from of_function("###", f"{node.name}.{each.name}", each)


def of_errors() -> Iterator[str]:
    yield "## manifest.ManifestError"
    yield as_written(inspect.cleandoc(errors.ManifestError.__doc__ or ""))
    yield "Those below are its children, in `manifest.errors`; a program meets few of them."
    rows = [
        f"| `{name}` | {inspect.cleandoc(getattr(errors, name).__doc__ or '').splitlines()[0]} |"
        for name in errors.__all__
        if name != "ManifestError"
    ]
    yield "\n".join(["| error | means |", "| --- | --- |", *rows])


def reference() -> str:
    parts = [HEAD.rstrip()]
    for thing in ORDER:
        name, node = definition(thing)
        parts += (
            of_function("##", name, node) if isinstance(node, Function) else of_class(name, node)
        )
    return "\n\n".join([*parts, *of_errors()]) + "\n"


def test_the_reference_is_what_the_code_says(checkout: Path) -> None:
    path = checkout / "docs" / "api.md"
    if os.environ.get("REWRITE_GOLDEN"):
        path.write_text(reference(), encoding="utf-8")
    assert path.read_text(encoding="utf-8") == reference()


def test_everything_public_is_in_it() -> None:
    named = {thing.__name__ for thing in ORDER} | {"ManifestError"}
    assert {*manifest.__all__} <= named
    assert all(getattr(errors, name).__doc__ for name in errors.__all__)
