"""Git repositories, with nobody's configuration, and a driver of accelerators."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

BINARY = bytes(range(256)) * 40


@pytest.fixture
def git_of_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git without anyone's configuration, and a scratch folder to look into afterwards."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "config").write_text("[user]\nname = Ada\nemail = ada@example.org\n")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def git(git_of_nobody: None) -> Callable[..., bytes]:
    """Run git in a folder."""

    def run(folder: Path, *arguments: str) -> bytes:
        command: list[str | Path] = ["git", "-C", folder, *arguments]
        return subprocess.run(command, capture_output=True, check=True).stdout.strip()

    return run


@pytest.fixture
def make_repository(git: Callable[..., bytes]) -> Callable[[Path], Path]:
    """Make a repository with one commit."""

    def make(folder: Path) -> Path:
        folder.mkdir()
        git(folder, "init", "--quiet", "--initial-branch=main")
        (folder / "train.py").write_text("a = 1\nb = 2\nc = 3\n")
        (folder / "data.bin").write_bytes(BINARY)
        (folder / "package").mkdir()
        (folder / "package" / "model.py").write_text("class Model: ...\n" * 20)
        (folder / "run.sh").write_text("echo\n")
        (folder / "link").symlink_to("train.py")
        (folder / ".gitignore").write_text("ignored/\n")
        git(folder, "add", "-A")
        git(folder, "commit", "--quiet", "-m", "first")
        return folder

    return make


@pytest.fixture
def repository(tmp_path: Path, make_repository: Callable[[Path], Path]) -> Path:
    """One that is there."""
    return make_repository(tmp_path / "repository")


DRIVER = r"""
#include <string.h>
typedef void *device;
static int starts = 0;
static int put(char *out, unsigned size, const char *text) {
    if (strlen(text) >= size) return 7;
    strcpy(out, text);
    return 0;
}
int nvmlInit_v2(void) { starts++; return INIT; }
int nvmlShutdown(void) { starts--; return 0; }
int balance(void) { return starts; }
int nvmlSystemGetDriverVersion(char *o, unsigned n) { return put(o, n, "580.95.05"); }
int nvmlSystemGetCudaDriverVersion_v2(int *o) { *o = 13000; return 0; }
int nvmlDeviceGetCount_v2(unsigned *o) { *o = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, device *o) { *o = (device)(i + 1ul); return HANDLE; }
int nvmlDeviceGetName(device d, char *o, unsigned n) { return put(o, n, NAME); }
int nvmlDeviceGetUUID(device d, char *o, unsigned n) {
    if ((unsigned long)d >= 100) return put(o, n, (unsigned long)d % 2 ? "MIG-1" : "MIG-0");
    return put(o, n, d == (device)1 ? "GPU-0" : "GPU-1");
}
int nvmlDeviceGetCudaComputeCapability(device d, int *a, int *b) { *a = MAJOR; *b = 0; return 0; }
int nvmlDeviceGetNumGpuCores(device d, unsigned *o) { *o = CORES; return 0; }
int nvmlDeviceGetMemoryInfo(device d, unsigned long long *o) {
    o[0] = 85520809984ull; o[1] = 1; o[2] = 2; return 0;
}
int nvmlDeviceGetEccMode(device d, unsigned *a, unsigned *b) { *a = 1; *b = 0; return ECC; }
int nvmlDeviceGetMigMode(device d, unsigned *a, unsigned *b) { *a = MIG; *b = 1; return 0; }
int nvmlDeviceGetPowerManagementLimit(device d, unsigned *o) { *o = 700000; return 0; }
/* Slices have handles of their own, above 100. */
int nvmlDeviceGetMaxMigDeviceCount(device d, unsigned *o) { *o = 7; return SLICES; }
int nvmlDeviceGetMigDeviceHandleByIndex(device d, unsigned i, device *o) {
    *o = (device)(100ul * (unsigned long)d + i); return i < 2 ? 0 : 6;
}
int nvmlDeviceGetAttributes_v2(device d, unsigned *o) {
    if ((unsigned long)d < 100) return 3;
    o[0] = 16 << (unsigned long)d % 2; memset(o + 1, 0, 36); return 0;
}
"""


H100 = {"NAME": '"NVIDIA H100 80GB HBM3"', "MAJOR": 9, "CORES": 16896}


@pytest.fixture(scope="session")
def build_driver() -> Callable[..., str]:
    """Build the library of NVIDIA's driver in a folder, for a machine with two devices."""

    def build(folder: Path, **answers: object) -> str:
        if shutil.which("gcc") is None:
            pytest.skip("needs gcc")
        source, library = folder / "driver.c", folder / "libnvidia-ml.so.1"
        source.write_text(DRIVER)
        given = {"INIT": 0, "HANDLE": 0, "ECC": 0, "MIG": 0, "SLICES": 0} | H100 | answers
        options = [f"-D{name}={value}" for name, value in given.items()]
        subprocess.run(["gcc", "-shared", "-fPIC", *options, "-o", library, source], check=True)
        return str(library)

    return build
