"""Hardware, and the driver at its boundary: a library of the same functions, built here."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import manifest.environment
from manifest.canonical import ABSENT
from manifest.environment import hardware
from manifest.environment.hardware import capture_accelerators, capture_hardware

Build = Callable[..., str]

A100 = {"NAME": '"NVIDIA A100-SXM4-80GB"', "MAJOR": 8, "CORES": 6912}


def test_the_processor_the_memory_and_the_system_are_described() -> None:
    captured = capture_hardware()
    assert [key for key, value in captured.items() if "$failed" in str(value)] == []
    assert captured["cpu.count"] == os.cpu_count()
    assert captured["cpu.affinity_count"] == len(os.sched_getaffinity(0))
    assert captured["cpu.isa"] == sorted(captured["cpu.isa"])
    assert captured["memory_bytes"] > 2**28
    assert captured["os.kernel"] == os.uname().release
    assert captured["os.libc"] == " ".join(platform.libc_ver())
    assert json.loads(json.dumps(captured)) == captured


def test_describing_is_repeatable() -> None:
    assert capture_hardware() == capture_hardware()


def test_accelerators_are_described_by_their_driver(tmp_path: Path, build_driver: Build) -> None:
    captured = capture_accelerators(build_driver(tmp_path))
    assert captured["gpu.driver"] == "580.95.05"
    assert captured["gpu.driver_cuda"] == "13.0"
    assert captured["gpu.count"] == 2
    first = {k.removeprefix("gpu.0."): v for k, v in captured.items() if k.startswith("gpu.0.")}
    assert first == {
        "name": "NVIDIA H100 80GB HBM3",
        "uuid": "GPU-0",
        "vbios": ABSENT,  # this driver has no such function
        "capability": "9.0",
        "cores": 16896,
        "sm_count": 132,
        "memory_bytes": 85520809984,
        "ecc": True,
        "mig": False,
        "power_limit_mw": 700000,
    }
    assert captured["gpu.1.uuid"] == "GPU-1"


def test_multiprocessors_follow_from_cores_and_capability(
    tmp_path: Path, build_driver: Build
) -> None:
    captured = capture_accelerators(build_driver(tmp_path, **A100))
    assert captured["gpu.0.name"] == "NVIDIA A100-SXM4-80GB"
    assert (captured["gpu.0.capability"], captured["gpu.0.sm_count"]) == ("8.0", 108)
    (tmp_path / "new").mkdir()
    unheard_of = build_driver(tmp_path / "new", MAJOR=99)
    assert capture_accelerators(unheard_of)["gpu.0.sm_count"] == ABSENT


def test_slices_take_the_place_of_a_device_that_is_cut_into_them(
    tmp_path: Path, build_driver: Build
) -> None:
    captured = capture_accelerators(build_driver(tmp_path, MIG=1, **A100))
    assert captured["gpu.0.mig"] is True
    slices = {k: v for k, v in captured.items() if k.startswith("gpu.0.mig.")}
    assert {k.removeprefix("gpu.0.mig."): v for k, v in slices.items()} == {
        "count": 2,
        "0.name": "NVIDIA A100-SXM4-80GB",
        "0.uuid": "MIG-0",
        "0.sm_count": 16,
        "0.memory_bytes": 85520809984,
        "1.name": "NVIDIA A100-SXM4-80GB",
        "1.uuid": "MIG-1",
        "1.sm_count": 32,
        "1.memory_bytes": 85520809984,
    }
    (tmp_path / "b").mkdir()
    hidden = capture_accelerators(build_driver(tmp_path / "b", MIG=1, SLICES=4))
    assert "no permission" in hidden["gpu.0.mig.count"]["$failed"]


def test_the_driver_is_left_as_it_was_found(tmp_path: Path, build_driver: Build) -> None:
    import ctypes

    library = build_driver(tmp_path)
    capture_accelerators(library)
    assert ctypes.CDLL(library).balance() == 0


def test_a_driver_without_the_library_is_absent(tmp_path: Path) -> None:
    captured = capture_accelerators(str(tmp_path / "libnvidia-ml.so.1"))
    assert captured["gpu.driver"] == ABSENT
    assert "gpu.count" not in captured


def test_a_driver_that_is_not_loaded_says_so(tmp_path: Path, build_driver: Build) -> None:
    captured = capture_accelerators(build_driver(tmp_path, INIT=9))
    assert "the driver is not loaded" in captured["gpu.driver"]["$failed"]


def test_a_device_without_permission_says_so_and_the_driver_is_still_described(
    tmp_path: Path, build_driver: Build
) -> None:
    captured = capture_accelerators(build_driver(tmp_path, HANDLE=4))
    assert captured["gpu.driver"] == "580.95.05"
    assert captured["gpu.count"] == 2
    assert "no permission" in captured["gpu.0.name"]["$failed"]


def test_what_a_device_does_not_support_is_absent_and_what_fails_says_why(
    tmp_path: Path, build_driver: Build
) -> None:
    assert capture_accelerators(build_driver(tmp_path, ECC=3))["gpu.0.ecc"] == ABSENT
    (tmp_path / "b").mkdir()
    captured = capture_accelerators(build_driver(tmp_path / "b", ECC=999))
    assert "answer 999" in captured["gpu.0.ecc"]["$failed"]
    assert captured["gpu.0.mig"] is False


def test_a_training_process_can_ask_without_loading_anything_that_draws() -> None:
    program = (
        "import os, sys, types\n"
        "bare = types.ModuleType('manifest')\n"  # without what the face of the package loads
        "bare.__path__ = [sys.argv[1]]\n"
        "sys.modules['manifest'] = bare\n"
        "from manifest.environment import hardware, interpreter, packages, redaction, variables\n"
        "interpreter.capture_interpreter(); variables.capture_variables(os.environ)\n"
        "packages.capture_packages(sys.path); hardware.capture_hardware()\n"
        "redaction.redact_argv(sys.argv, b'')\n"
        "heavy = 'random numpy torch tempfile uuid secrets subprocess platform ctypes pydantic'\n"
        "print(sorted(set(heavy.split()) & set(sys.modules)))\n"
    )
    package = Path(manifest.environment.__file__).parents[1]
    # Without site, whose .pth files load modules of their own.
    answer = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, package],
        capture_output=True,
        check=True,
        text=True,
    )
    assert answer.stdout.strip() == "[]"


ID = "0123456789abcdef" * 4
LAYER = "f" * 64


@pytest.mark.parametrize(
    ("mounts", "groups"),
    [
        (f"1 2 3 /var/lib/docker/containers/{ID}/resolv.conf /etc/resolv.conf rw\n", "0::/\n"),
        (f"1 2 3 /x/overlay-containers/{ID}/userdata/hosts /etc/hosts rw\n", "0::/\n"),
        (
            f"1 2 3 / / rw upperdir=/overlay2/{LAYER}/diff\n",
            f"0::/system.slice/docker-{ID}.scope\n",
        ),
        ("", f"1:cpu:/\n0::/kubepods/besteffort/pod1/{ID}\n"),
        ("", f"0::/kubepods.slice/cri-containerd-{ID}.scope\n"),
        ("", f"12:cpu:/docker/{ID}\n"),
    ],
)
def test_a_container_is_known_by_its_id(tmp_path: Path, mounts: str, groups: str) -> None:
    (tmp_path / "mountinfo").write_text(mounts)
    (tmp_path / "cgroup").write_text(groups)
    assert hardware._container_id(str(tmp_path)) == ID


def test_outside_of_a_container_there_is_no_id(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(f"1 2 3 / / rw upperdir=/overlay2/{LAYER}/diff\n")
    (tmp_path / "cgroup").write_text("0::/user.slice/user-1000.slice/session-3.scope\n")
    assert hardware._container_id(str(tmp_path)) == ABSENT


def test_podman_tells_the_image_of_a_container(tmp_path: Path) -> None:
    told = tmp_path / ".containerenv"
    assert hardware._image(str(told)) == ABSENT
    told.write_text(f'engine="podman-5"\nname="x"\nimage="docker.io/a:1"\nimageid="{ID}"\n')
    assert hardware._image(str(told)) == ID


@pytest.mark.parametrize(
    ("name", "content", "quota"),
    [
        ("cpu.max", "150000 100000\n", 1.5),
        ("cpu.max", "max 100000\n", ABSENT),
        ("cpu/cpu.cfs_quota_us", "200000\n", 2.0),
        ("cpu/cpu.cfs_quota_us", "-1\n", ABSENT),
        ("nothing", "", ABSENT),
    ],
)
def test_the_share_of_processors_is_read(
    tmp_path: Path, name: str, content: str, quota: object
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    assert hardware._quota(str(tmp_path)) == quota
