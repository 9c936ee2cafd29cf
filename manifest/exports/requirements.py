"""The packages of a run as a requirements file, which says what it cannot hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from manifest.describing import shown
from manifest.rebuilding import named, python_version
from manifest.recorded import Recorded

_BUILD: Final = re.compile(r"[^ ]+\+(cpu|cu\d{2,4}|rocm\d[\d.]{0,7}|xpu)")
_INDEX: Final = "https://download.pytorch.org/whl/"


def requirements_text(recorded: Recorded) -> str:
    """The packages that were installed, each at its version, commit or digest."""
    return "".join(f"{line}\n" for line in _lines(recorded))


def _lines(recorded: Recorded) -> Iterator[str]:
    packages = named(recorded)
    version = python_version(recorded) or "another version of Python than one can name"
    yield f"# The packages of run {recorded.id}, with Python {version}. All are listed, so install"
    yield "# none that they depend on:"
    yield "#   pip install --no-deps -r requirements.txt"
    yield "#   uv pip install --no-deps --index-strategy unsafe-best-match -r requirements.txt"
    for build in _builds(each.line for each in packages):
        yield f"--extra-index-url {_INDEX}{build}"
    yield from (each.line for each in packages if each.line)
    for each in packages:
        if each.problem:
            # On one line: another one would be a requirement.
            yield f"# not listed: {shown(each.name)[:80]}: {shown(each.problem)}"
        elif not each.line:
            yield f"# not listed: {each.name}: the project itself holds its source"


def _builds(lines: Iterable[str]) -> list[str]:
    """The builds of PyTorch and what belongs to it, each of which has an index of its own."""
    return sorted({build[1] for line in lines if (build := _BUILD.fullmatch(line))})
