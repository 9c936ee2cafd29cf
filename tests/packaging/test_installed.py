"""The wheel installed with what it asks for, and nothing else of what the tests install."""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

Environment = Any
Install = Callable[..., Environment]

TRAIN = """
import sys
import numpy, torch
from descent import Descent

numpy.random.seed(1)
torch.manual_seed(1)
model = torch.nn.Linear(4, 1)
optimizer = Descent(model.parameters(), lr=float(sys.argv[1]))
for _ in range(3):
    batch = torch.tensor(numpy.random.rand(8, 4), dtype=torch.float32)
    optimizer.zero_grad()
    model(batch).square().mean().backward()
    optimizer.step()
"""

READING = (
    ("ls",),
    ("ls", "command like '%train.py%' and packages.xxhash is not null", "--json"),
    ("show", "@latest"),
    ("show", "@latest", "--json"),
    ("diff", "@prev", "@latest"),
    ("verify", "@prev", "@latest"),
    ("check", "@latest"),
    ("replay", "@latest", "--plan"),
    ("config",),
    ("doctor",),
    *(("export", "@latest", "-f", form, "-o", form) for form in ("archive", "rocrate", "intoto")),
    *(("export", "@latest", "-f", form) for form in ("requirements", "script", "dockerfile")),
    ("import", "archive"),
    ("token", "create", "cluster"),
    ("token", "ls"),
    ("db", "upgrade"),
    ("db", "check"),
    ("db", "backup", "copy.db"),
    ("db", "prune"),
)

# One process for all of them: what one could not import is looked for again by the next.
CALL_EACH = """
import json, sys
from manifest_client.cli.main import main

for command in json.loads(sys.argv[1]):
    sys.argv = ["manifest", *command]
    try:
        main()
    except SystemExit as ending:
        if ending.code not in (0, 1):
            sys.exit(f"manifest {' '.join(command)} ended with {ending.code}")
"""

IMPORT_EACH = """
import importlib, json, pkgutil
import manifest, manifest_client, manifest_server

lacking = {}
for package in (manifest, manifest_client, manifest_server):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + ".", lambda name: None):
        try:
            importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            lacking[found.name] = error.name
print(json.dumps(lacking))
"""

SERVICE = {
    "api",
    "app",
    "callers",
    "dependencies",
    "intake",
    "metrics",
    "middleware",
    "problems",
    "sent",
    "serve",
    "settings",
    "web",
    "writer",
}
TRAINED_WITH = {"accelerate", "hydra", "lightning", "pytest", "torch", "transformers"}

FOR_EXTRAS = {
    "hydra": "import manifest.integrations.hydra",
    "postgres": """
from manifest_server.database import open_engine
open_engine("postgresql://127.0.0.1:1/runs")
""",
    "blobs": """
import pathlib
from manifest_server.objects import open_objects
open_objects(pathlib.Path.cwd().as_uri()).delete(["sha256:" + 64 * "0"])
""",
}

PAGES = (
    "/healthz",
    "/readyz",
    "/metrics",
    "/api/v1/runs/{}",
    "/docs",
    "/",
    "/runs/{}",
    "/guide/start",
)


@pytest.fixture(scope="module")
def bare(installed: Install) -> Environment:
    """Nothing but what the wheel itself asks for: where runs are read."""
    return installed()


@pytest.fixture(scope="module")
def training(installed: Install) -> Environment:
    """The same where PyTorch is: where programs train."""
    return installed("torch", "numpy")


@pytest.fixture(scope="module")
def project(training: Environment, descent: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a program was recorded, and then again with another learning rate."""
    folder: Path = tmp_path_factory.mktemp("digits")
    (folder / "train.py").write_text(TRAIN)
    (folder / "descent.py").write_text(descent.read_text())
    for rate in ("0.1", "0.2"):
        training.run("manifest", "run", "--", "python", "train.py", rate, cwd=folder)
    return folder


def test_what_is_imported_is_the_wheel(bare: Environment, tmp_path: Path) -> None:
    show = "import manifest; print(manifest.__file__)"
    imported = bare.run("python", "-c", show, cwd=tmp_path)
    assert Path(imported.strip()).is_relative_to(bare.folder)


def test_the_command_tells_the_version_of_the_wheel(
    bare: Environment, checkout: Path, tmp_path: Path
) -> None:
    version = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["version"]
    assert version in bare.run("manifest", "--version", cwd=tmp_path)


def test_there_are_no_runs_in_an_empty_folder(bare: Environment, tmp_path: Path) -> None:
    bare.run("manifest", "ls", cwd=tmp_path)


def test_a_training_is_replayed(training: Environment, project: Path) -> None:
    assert "IDENTICAL" in training.run("manifest", "replay", "@latest", cwd=project)


def test_a_program_records_itself(training: Environment, tmp_path: Path) -> None:
    training.run("python", "-c", "import manifest; manifest.record()", cwd=tmp_path)
    assert "python -c" in training.run("manifest", "ls", cwd=tmp_path)


def test_runs_are_read_where_nothing_else_is_installed(bare: Environment, project: Path) -> None:
    said = bare.run("python", "-c", CALL_EACH, json.dumps(READING), cwd=project)
    assert "train.py 0.2" in said


def test_only_the_service_itself_needs_an_extra(bare: Environment, tmp_path: Path) -> None:
    lacking = json.loads(bare.run("python", "-c", IMPORT_EACH, cwd=tmp_path))
    server = {name.split(".")[1] for name in lacking if name.startswith("manifest_server.")}
    assert server == SERVICE
    others = {needed for name, needed in lacking.items() if name.split(".")[0] != "manifest_server"}
    assert others == TRAINED_WITH


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (("server",), "server"),
        (("db", "check", "--database", "postgresql://127.0.0.1:1/runs"), "postgres"),
    ],
)
def test_what_needs_an_extra_names_it(
    bare: Environment, tmp_path: Path, command: tuple[str, ...], extra: str
) -> None:
    ended = bare.call("manifest", *command, cwd=tmp_path)
    assert ended.returncode == 2
    assert f"pip install 'manifest-replay[{extra}]'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_extra_of_the_service_is_all_that_it_needs(
    installed: Install, bare: Environment, project: Path, tmp_path: Path
) -> None:
    with served(installed(extras="server"), tmp_path) as address:
        bare.run("manifest", "sync", cwd=project, MANIFEST_URL=address)
        wanted = "command like '%0.1'"
        listed = bare.run(
            "manifest", "ls", "--remote", "--json", wanted, cwd=tmp_path, MANIFEST_URL=address
        )
        (found,) = json.loads(listed)
        bare.run("manifest", "pull", found["id"], cwd=tmp_path, MANIFEST_URL=address)
        for page in PAGES:
            with urlopen(address + page.format(found["id"]), timeout=60) as answer:
                assert answer.status == 200


@contextmanager
def served(environment: Environment, folder: Path) -> Iterator[str]:
    """The address of a service that keeps its runs in a folder."""
    process = subprocess.Popen(
        [
            environment.programs / "manifest",
            "server",
            "--port",
            "0",
            "--database",
            "sqlite:///r.db",
        ],
        cwd=folder,
        env=environment.variables(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        assert said, process.communicate()[1]
        yield said.split()[-1]
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.mark.parametrize("extra", FOR_EXTRAS)
def test_an_extra_brings_all_that_it_is_for(installed: Install, tmp_path: Path, extra: str) -> None:
    installed(extras=extra).run("python", "-c", FOR_EXTRAS[extra], cwd=tmp_path)
