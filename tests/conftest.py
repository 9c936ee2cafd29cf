"""What every test is given: an environment that says nothing of the machine it runs on."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
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
def descent(checkout: Path) -> Path:
    """An optimizer that does not import the compiler; it is copied beside what trains with it."""
    return checkout / "tests" / "end_to_end" / "scripts" / "descent.py"


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


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse to begin where commands under test would find runs that are not theirs."""
    # Started in the background of a shell they ignore it, and so would programs that they start.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    root = Path(tempfile.gettempdir()).resolve()
    for folder in (root, *root.parents):
        if (stray := folder / ".manifest").exists():
            pytest.exit(
                f"{stray} exists, and every test works in a folder below {folder}: "
                "commands that look for the nearest .manifest would find it. Remove it.",
                returncode=pytest.ExitCode.USAGE_ERROR,
            )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs an accelerator, or a package index, where there is none."""
    if item.get_closest_marker("gpu") is not None and not _has_accelerator():
        pytest.skip("no accelerator")
    if item.get_closest_marker("network") is not None and not _has_package_index():
        pytest.skip("no package index")


def _has_accelerator() -> bool:
    import torch

    return torch.cuda.is_available()


@functools.cache
def _has_package_index() -> bool:
    if os.environ.get("CI"):
        return True
    command = [sys.executable, "-m", "uv", "pip", "install", "--dry-run", "--no-deps", "--target"]
    asked = [*command, os.devnull + "-none", "--reinstall", "six==1.15.0"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0
