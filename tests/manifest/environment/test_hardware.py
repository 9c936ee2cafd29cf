"""Hardware, and the driver at its boundary: a library of the same functions, built here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import manifest.environment
from manifest.canonical import ABSENT
from manifest.environment.hardware import capture_accelerators, capture_hardware

BuildDriver = Callable[..., str]


def test_the_processor_the_memory_and_the_system_are_described() -> None:
    captured = capture_hardware()
    assert [key for key, value in captured.items() if "$failed" in str(value)] == []
    assert captured["cpu.count"] == os.cpu_count()
    assert captured["cpu.affinity_count"] == len(os.sched_getaffinity(0))
    assert captured["cpu.isa"] == sorted(captured["cpu.isa"])
    assert captured["memory_bytes"] > 2**28
    assert captured["os.kernel"] == os.uname().release
    assert json.loads(json.dumps(captured)) == captured


def test_describing_is_repeatable() -> None:
    assert capture_hardware() == capture_hardware()


def test_accelerators_are_described_by_their_driver(
    tmp_path: Path, build_driver: BuildDriver
) -> None:
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
        "memory_bytes": 85520809984,
        "ecc": True,
        "mig": False,
        "power_limit_mw": 700000,
    }
    assert captured["gpu.1.uuid"] == "GPU-1"


def test_the_driver_is_left_as_it_was_found(tmp_path: Path, build_driver: BuildDriver) -> None:
    import ctypes

    library = build_driver(tmp_path)
    capture_accelerators(library)
    assert ctypes.CDLL(library).balance() == 0


def test_a_driver_without_the_library_is_absent(tmp_path: Path) -> None:
    captured = capture_accelerators(str(tmp_path / "libnvidia-ml.so.1"))
    assert captured["gpu.driver"] == ABSENT
    assert "gpu.count" not in captured


def test_a_driver_that_is_not_loaded_says_so(tmp_path: Path, build_driver: BuildDriver) -> None:
    captured = capture_accelerators(build_driver(tmp_path, INIT=9))
    assert "the driver is not loaded" in captured["gpu.driver"]["$failed"]


def test_a_device_without_permission_says_so_and_the_driver_is_still_described(
    tmp_path: Path, build_driver: BuildDriver
) -> None:
    captured = capture_accelerators(build_driver(tmp_path, HANDLE=4))
    assert captured["gpu.driver"] == "580.95.05"
    assert captured["gpu.count"] == 2
    assert "no permission" in captured["gpu.0.name"]["$failed"]


def test_what_a_device_does_not_support_is_absent_and_what_fails_says_why(
    tmp_path: Path, build_driver: BuildDriver
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
