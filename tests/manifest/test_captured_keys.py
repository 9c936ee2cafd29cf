"""Nothing is judged that nobody records: every key of the catalogue and of the rules is captured."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

import manifest
from manifest.catalogue import Setting, all_settings, settings_of
from manifest.environment.variables import capture_variables
from manifest.launching import launch
from manifest.settings import capture_settings, capture_slow_settings

Key = tuple[str, str]

# Of these sections any key may come, from whatever is installed, given or read.
OPEN = frozenset(("packages", "config", "inputs", "outputs", "generators"))

SCRIPT = """\
import os, random
import numpy, torch
import manifest
manifest.record(config={"lr": 1})
random.seed(1)
numpy.random.default_rng()
os.urandom(1)
loader = torch.utils.data.DataLoader(range(4), batch_size=2)
weight = torch.ones(1, requires_grad=True)
for batch in loader:
    (weight * batch.sum()).sum().backward()
torch.optim.SGD([weight]).step()
os.environ.get("ASKED_FOR")
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> set[Key]:
    """The keys that a run of a real program has."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "script.py").write_text(SCRIPT)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = launch([sys.executable, "script.py"], base=folder / ".manifest")
    assert done.exit_code == 0
    return {
        (section, key)
        for section, values in done.run.document()["sections"].items()
        for key in dotted(values)
    }


def dotted(values: Mapping[str, Any], above: str = "", depth: int = 3) -> Iterator[str]:
    for key, value in values.items():
        yield above + key
        if isinstance(value, dict) and depth:
            yield from dotted(value, f"{above}{key}.", depth - 1)


@pytest.fixture(scope="module")
def variables() -> set[Key]:
    """Every variable of the catalogue that is recorded where it is set."""
    keys = (each.key for each in all_settings() if each.section == "environment")
    names = {key.removeprefix("env.").replace("*", "X") for key in keys if key.startswith("env.")}
    set_to_something = dict.fromkeys(names, "1")
    found = capture_variables(set_to_something, exec_environ=set_to_something)
    return {("environment", key) for key in found}


def settings() -> set[Key]:
    import torch.distributed  # noqa: F401

    return {("settings", key) for key in (*capture_settings(), *capture_slow_settings())}


def literals() -> set[str]:
    """Texts in the code that records: keys that only other machines and programs have."""
    package = Path(manifest.__file__).parent
    recording = [*package.glob("*.py"), *package.glob("environment/*.py"), *package.glob("pytorch/*.py")]
    judging = {"judging.py", "findings.py", "diffing.py", "conclusion.py", "planning.py", "texts.py"}
    trees = [ast.parse(file.read_text()) for file in recording if file.name not in judging]
    return {
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
