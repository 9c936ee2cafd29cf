"""Shared libraries that a process has mapped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from manifest.environment.mapped import capture_mapped


def captured(*lines: str) -> dict[str, Any]:
    """What a program of its own finds after these lines."""
    program = "\n".join(
        (
            *lines,
            "import json",
            "from manifest.environment.mapped import capture_mapped",
            "print(json.dumps(capture_mapped()))",
        )
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_what_computes_is_described_once_it_is_mapped() -> None:
    import torch  # noqa: F401

    found = capture_mapped()
    (openmp,) = (key for key in found if key in ("lib.gomp", "lib.iomp5", "lib.omp"))
    assert all(".so" in each["file"] for each in found[openmp])
    assert all(each["build"] for each in found[openmp])
    assert captured() == {}


def compiled(folder: Path, name: str, *options: str, answer: int = 0) -> str:
    source = f"int cudaRuntimeGetVersion(int *o) {{ *o = 13020; return {answer}; }}\n"
    (folder / "x.c").write_text(source)
    command = ["gcc", "-shared", "-fPIC", *options, "-o", f"{folder / name}", f"{folder}/x.c"]
    try:
        subprocess.run(command, check=True)
    except FileNotFoundError:
        pytest.skip("needs gcc")
    return f"import ctypes; ctypes.CDLL({str(folder / name)!r})"


def test_a_library_is_its_file_and_build(tmp_path: Path) -> None:
    mapped = compiled(tmp_path, "libcublas.so.13.1", "-Wl,--build-id=0xabcdef0123456789")
    expected = {"file": "libcublas.so.13.1", "build": "abcdef0123456789"}
    assert captured(mapped) == {"lib.cublas": [expected]}
    anonymous = compiled(tmp_path, "libnccl.so.2", "-Wl,--build-id=none")
    size = (tmp_path / "libnccl.so.2").stat().st_size
    assert captured(anonymous)["lib.nccl"] == [{"file": "libnccl.so.2", "build": f"{size} bytes"}]


def test_the_runtime_of_cuda_says_its_version(tmp_path: Path) -> None:
    assert captured(compiled(tmp_path, "libcudart.so.13"))["cuda.runtime"] == "13.2"
    failing = captured(compiled(tmp_path, "libcudart-x.so.13", answer=35))
    assert "answer 35" in failing["cuda.runtime"]["$failed"]


def test_two_libraries_of_one_kind_are_both_told(tmp_path: Path) -> None:
    lines = [compiled(tmp_path, name) for name in ("libgomp-1.so", "libgomp-2.so")]
    files = [each["file"] for each in captured(*lines)["lib.gomp"]]
    assert files == ["libgomp-1.so", "libgomp-2.so"]


def test_a_file_that_is_gone_is_no_harm(tmp_path: Path) -> None:
    mapped = compiled(tmp_path, "libomp-1.so")
    found = captured(mapped, f"import os; os.unlink({str(tmp_path / 'libomp-1.so')!r})")
    assert found == {} or "$failed" in str(found)
