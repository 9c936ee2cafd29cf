"""Libraries that a process has loaded are told by what they are, not by their names alone."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
import torch

from manifest.environment.libraries import capture_libraries


def captured(folder: Path, *lines: str) -> dict[str, str]:
    maps = folder / "maps"
    maps.write_text("".join(f"7f00-7f01 r-xp 00000000 08:01 1    {line}\n" for line in lines))
    found = capture_libraries(str(maps))["process.libraries"]
    assert isinstance(found, dict)
    return found


def build(folder: Path, *options: str, name: str = "libblas.so") -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    folder.mkdir(exist_ok=True)
    source = folder / "source.c"
    source.write_text("int one(void) { return 1; }\n")
    command = ["gcc", "-shared", "-fPIC", *options, "-o", str(folder / name), str(source)]
    subprocess.run(command, check=True)
    return folder / name


def test_the_libraries_of_this_process_are_found() -> None:
    assert torch.zeros(1).item() == 0
    found = capture_libraries()["process.libraries"]
    assert isinstance(found, dict)
    assert found["libtorch_cpu.so"].startswith("build ")
    assert not any("libpython" in name for name in found)


def test_a_library_is_told_by_its_build(tmp_path: Path) -> None:
    library = build(tmp_path, "-Wl,--build-id=0x00112233aabb")
    assert captured(tmp_path, str(library)) == {"libblas.so": "build 00112233aabb"}


def test_a_library_without_a_build_is_told_by_its_size(tmp_path: Path) -> None:
    library = build(tmp_path, "-Wl,--build-id=none")
    assert captured(tmp_path, str(library)) == {"libblas.so": f"{library.stat().st_size} bytes"}


def test_two_of_one_name_are_both_told(tmp_path: Path) -> None:
    one = build(tmp_path / "a", "-Wl,--build-id=0xaa")
    other = build(tmp_path / "b", "-Wl,--build-id=0xbb")
    lines = [str(one), str(other), str(one)]
    assert captured(tmp_path, *lines) == {"libblas.so": "build aa, build bb"}


def test_what_is_gone_damaged_or_no_library_is_said_or_left_out(tmp_path: Path) -> None:
    (tmp_path / "libomp.so").write_bytes(b"\x7fELF\x02\x01" + bytes(10))
    hostile = struct.pack("<6s26xQ14xHH", b"\x7fELF\x02\x01", 2**63, 56, 65535)
    (tmp_path / "libmkl.so").write_bytes(hostile)
    gone = f"{tmp_path}/libcudnn.so.9 (deleted)"
    assert captured(
        tmp_path, "[heap]", f"{tmp_path}/libssl.so", f"{tmp_path}/torch.txt", gone,
        f"{tmp_path}/libomp.so", f"{tmp_path}/libmkl.so",
    ) == {
        "libcudnn.so.9": "not readable: No such file or directory",
        "libomp.so": "16 bytes",
        "libmkl.so": f"{len(hostile)} bytes",
    }  # fmt: skip
