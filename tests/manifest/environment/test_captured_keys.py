"""Nothing is judged that nobody records: each key of the catalogue and of a rule is captured."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

import manifest
from manifest.catalogue import all_settings
from manifest.environment import hardware, launcher, mapped, variables
from manifest.launching import launch
from manifest.models import SECTIONS

Key = tuple[str, str]

# Any key may be in these: of whatever a machine has, and a program makes, is given or reads.
OPEN = frozenset(("packages", "config", "inputs", "outputs", "generators"))

SCRIPT = """\
import os, random
import torch, tiny_lib
import manifest
from torchdata.stateful_dataloader import StatefulDataLoader
run = manifest.record(config={"lr": 1})
random.seed(1)
os.urandom(1)
sampler = torch.utils.data.DistributedSampler(range(4), num_replicas=1, rank=0)
next(iter(torch.utils.data.DataLoader(range(4), sampler=sampler)))
loader = torch.utils.data.DataLoader(range(4), batch_size=2, num_workers=0)
weight = torch.ones(1, requires_grad=True)
for batch in loader:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (weight * batch.sum()).sum().backward()
for kind in ("SGD", "Adam", "RMSprop", "Adadelta"):
    optimizer = getattr(torch.optim, kind)([weight], lr=0.1)
    optimizer.param_groups[0]["initial_lr"] = 0.1  # as schedulers do
    optimizer.step()
next(iter(StatefulDataLoader(range(4))))
run.snapshot("here")
torch.use_deterministic_algorithms(True, warn_only=True)
torch.zeros(4).put_(torch.tensor([1, 1]), torch.ones(2))  # PyTorch warns of it
os.environ.get("ASKED_FOR")
"""


IN_A_TEST_OF_THEIR_OWN = frozenset({"cuda.runtime"})


def git(folder: Path, *arguments: str) -> None:
    options = ("-c", "protocol.file.allow=always")
    subprocess.run(["git", "-C", str(folder), *options, *arguments], check=True)


def repository(folder: Path) -> Path:
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "README").write_text("x")
    git(folder, "add", "-A")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> set[Key]:
    """The keys of a run that has nearly everything: changes, a submodule, an edited library."""
    folder = tmp_path_factory.mktemp("captured")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("NAME", "Ada"), ("EMAIL", "ada@example.org")):
            patch.setenv(f"GIT_AUTHOR_{name}", value)
            patch.setenv(f"GIT_COMMITTER_{name}", value)
        project, library = repository(folder / "project"), repository(folder / "library")
        git(project, "submodule", "--quiet", "add", str(library), "module")
        (project / "README").write_text("y")
        repository(project / "a-repository-of-its-own")
        (project / "script.py").write_text(SCRIPT)
        (library / "tiny_lib.py").write_text("")
        information = folder / "site" / "tiny_lib-1.dist-info"
        information.mkdir(parents=True)
        origin = {"url": library.as_uri(), "dir_info": {"editable": True}}
        (information / "direct_url.json").write_text(json.dumps(origin))
        patch.setenv("PYTHONPATH", f"{folder / 'site'}:{library}")
        patch.chdir(project)
        command, base = [sys.executable, "script.py"], project / ".manifest"
        like = launch(command, base=base)
        done = launch(command, base=base, like=like.run)
    assert (like.exit_code, done.exit_code) == (0, 0)
    sections = done.run.document()["sections"]
    return {(section, key) for section, values in sections.items() for key in dotted(values)}


def dotted(values: Mapping[str, Any], above: str = "", depth: int = 3) -> Iterator[str]:
    for key, value in values.items():
        yield above + key
        if isinstance(value, dict) and depth:
            yield from dotted(value, f"{above}{key}.", depth - 1)


@pytest.fixture(scope="module")
def elsewhere(
    build_driver: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> set[Key]:
    """Keys that other machines and other launchers give."""
    root = tmp_path_factory.mktemp("root")
    node, card = root / "sys/class/kfd/kfd/topology/nodes/1", root / "sys/class/drm/card0/device"
    node.mkdir(parents=True)
    (node / "properties").write_text("simd_count 4\nsimd_per_cu 4\n")
    card.mkdir(parents=True)
    (card / "vendor").write_text("0x8086")
    (card / "driver").symlink_to(root / "xe")
    devices = hardware.capture_accelerators(build_driver(root, MIG=1), str(root))
    ranked = {"RANK": "0", "WORLD_SIZE": "1", "GROUP_WORLD_SIZE": "1"}
    ranked["TORCHELASTIC_RESTART_COUNT"] = "0"
    told = launcher.capture_launcher(ranked) | launcher.capture_given(ranked)
    return {("hardware", key) for key in devices} | {("environment", key) for key in told}


def is_captured(section: str, key: str, captured: set[Key]) -> bool:
    if any(section == one and fnmatchcase(found, key) for one, found in captured):
        return True
    if section == "environment" and key.startswith("env."):
        name = key.removeprefix("env.")
        return variables.is_recorded(name.replace("*", "X")) or any(
            fnmatchcase(one, name) for one in variables._LISTED | variables._ONLY_RECORDED
        )
    if section == "environment" and key.startswith("lib."):
        name = f"lib{key.removeprefix('lib.')}.so"
        return mapped.is_computing(name)
    return key in IN_A_TEST_OF_THEIR_OWN


def test_every_entry_of_the_catalogue_is_captured(recorded: set[Key], elsewhere: set[Key]) -> None:
    captured = recorded | elsewhere
    dead = [
        (each.section, each.key)
        for each in all_settings()
        # Settings of the process are read by their entry.
        if each.scope != "process" and each.section not in OPEN
        if not is_captured(each.section, each.key, captured)
    ]
    assert dead == []


def test_every_key_that_a_rule_looks_up_is_captured(
    recorded: set[Key], elsewhere: set[Key]
) -> None:
    known = {(each.section, each.key) for each in all_settings() if each.scope == "process"}
    captured = recorded | elsewhere | known
    looked_up = set(looked_up_by_rules())
    assert len(looked_up) > 10
    dead = [key for key in looked_up if not is_captured(*key, captured)]
    assert dead == []


ASKING = ("values", "maps", "differs", "agrees", "Effect")
"""What is given a section and a key."""


def called(node: ast.Call) -> str:
    return str(getattr(node.func, "attr", getattr(node.func, "id", "")))


def looked_up_by_rules() -> Iterator[Key]:
    """Section and key, as rules write them in pairs and in calls that ask for both runs."""
    for file in (Path(manifest.__file__).parent / "rules").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Tuple):
                pair = node.elts
            elif isinstance(node, ast.Call) and called(node) in ASKING:
                pair = node.args
            else:
                continue
            texts = [each.value for each in pair[:2] if isinstance(each, ast.Constant)]
            if len(texts) == 2 and texts[0] in SECTIONS and isinstance(texts[1], str):
                yield texts[0], texts[1]
