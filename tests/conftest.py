"""What every test is given: an environment that says nothing of the machine it runs on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# A deadline measures the machine, not the code.
settings.register_profile("manifest", deadline=None)
settings.load_profile("manifest")

_SPEAKING = ("MANIFEST_", "GIT_", "XDG_", "TORCHELASTIC_")
_SPEAKING_NAMES = frozenset(
    {
        "FORCE_COLOR",
        "LOCAL_RANK",
        "MASTER_ADDR",
        "MASTER_PORT",
        "NO_COLOR",
        "PYTHONHASHSEED",
        "PYTHONPATH",
        "RANK",
        "WORLD_SIZE",
    }
)


@pytest.fixture(autouse=True)
def _clean_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Give the test, and what it starts, an empty home and a git that knows only its author."""
    for name in list(os.environ):
        if name in _SPEAKING_NAMES or name.startswith(_SPEAKING):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ada@example.org")


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the source tree."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def build_driver() -> Callable[..., str]:
    """Build NVIDIA's driver into a folder, for a machine with two devices; it answers as told."""
    answers_of_h100 = {"NAME": '"NVIDIA H100 80GB HBM3"', "MAJOR": 9, "CORES": 16896}

    def build(folder: Path, **answers: object) -> str:
        if shutil.which("gcc") is None:
            pytest.skip("needs gcc")
        library = folder / "libnvidia-ml.so.1"
        good = dict.fromkeys(("INIT", "HANDLE", "ECC", "MIG", "SLICES"), 0)
        given: dict[str, object] = {**good, **answers_of_h100, **answers}
        options = [f"-D{name}={value}" for name, value in given.items()]
        source = Path(__file__).with_name("driver.c")
        subprocess.run(["gcc", "-shared", "-fPIC", *options, "-o", library, source], check=True)
        return str(library)

    return build


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs an accelerator where there is none."""
    if item.get_closest_marker("gpu") is None:
        return
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no accelerator")
