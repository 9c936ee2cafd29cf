"""Processor, memory, operating system, and accelerators as their driver describes them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

from manifest.canonical import ABSENT, Json, failed, plain

_CPUINFO = "/proc/cpuinfo"
_FIRST_PROCESSOR = 16_384  # bytes; the rest repeats it for every processor
_NVIDIA_MODULE = "/proc/driver/nvidia/version"

# Instruction sets that choose kernels in numeric libraries.
_X86 = re.compile(r"avx.*|amx.*|fma4?|f16c|sse4_[12]")
_ARM = re.compile(r"asimd.*|sve.*|sme.*|fphp|fcma|bf16|i8mm")


def capture_hardware() -> dict[str, Json]:
    """Read the processor, memory and system; cheap, and touches no accelerator."""
    processor = _first_processor()
    captured = {key: _read(probe) for key, probe in _PROBES.items()}
    captured |= {f"cpu.{key}": plain(value) for key, value in _describe(processor).items()}
    return captured


def capture_accelerators(library: str = "libnvidia-ml.so.1") -> dict[str, Json]:
    """Ask the driver for its accelerators, without making a context on any.

    Takes milliseconds, or longer where a driver sleeps: for a background thread or a launcher.

    Args:
        library: The driver's management library, by name or path.
    """
    captured = {"gpu.module": _read(_nvidia_module)}
    try:
        driver = _Driver(library)
    except OSError:
        return captured | {"gpu.driver": ABSENT}
    except Exception as error:
        return captured | {"gpu.driver": failed(error)}
    try:
        return captured | _ask(driver)
    finally:
        driver.close()


def _read(probe: Callable[[], object]) -> Json:
    try:
        return plain(probe())
    except Exception as error:
        return failed(error)


def _first_processor() -> dict[str, str]:
    try:
        with open(_CPUINFO, "rb", buffering=0) as file:
            text = b""
            while b"\n\n" not in text and len(text) < _FIRST_PROCESSOR:
                if not (more := file.read(4096)):
                    break
                text += more
    except OSError:
        return {}
    lines = text.partition(b"\n\n")[0].decode("utf-8", "replace").splitlines()
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _describe(processor: dict[str, str]) -> dict[str, object]:
    flags, kind = processor.get("flags", ""), _X86
    if "Features" in processor:
        flags, kind = processor["Features"], _ARM
    arm = [processor.get(key) for key in ("CPU implementer", "CPU part", "CPU variant")]
    described: dict[str, object] = {
        "model": processor.get("model name") or " ".join(filter(None, arm)) or ABSENT,
        "isa": sorted(flag for flag in flags.split() if kind.fullmatch(flag)),
    }
    signature = [processor.get(key) for key in ("cpu family", "model", "stepping")]
    if all(signature):
        described["signature"] = "/".join(map(str, signature))
    for key, name in (
        ("vendor", "vendor_id"),
        ("microcode", "microcode"),
        ("cache", "cache size"),
        ("cores_per_socket", "cpu cores"),
    ):
        if name in processor:
            described[key] = processor[name]
    return described


def _affinity_count() -> int:
    return len(os.sched_getaffinity(os.getpid()))


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _libc() -> object:
    return os.confstr("CS_GNU_LIBC_VERSION") or ABSENT


def _distribution() -> object:
    with open("/etc/os-release", encoding="utf-8", errors="replace") as file:
        pairs = dict(line.rstrip().partition("=")[::2] for line in file)
    return pairs.get("PRETTY_NAME", "").strip('"') or ABSENT


def _container() -> object:
    if os.path.exists("/run/.containerenv"):
        return "podman"
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    if "APPTAINER_CONTAINER" in os.environ or "SINGULARITY_CONTAINER" in os.environ:
        return "apptainer"
    return "docker" if os.path.exists("/.dockerenv") else ABSENT


def _nvidia_module() -> object:
    try:
        with open(_NVIDIA_MODULE, encoding="utf-8", errors="replace") as file:
            return file.readline().strip()
    except FileNotFoundError:
        return ABSENT


_PROBES: dict[str, Callable[[], object]] = {
    "cpu.count": os.cpu_count,
    "cpu.affinity_count": _affinity_count,
    "memory_bytes": _memory_bytes,
    "os.system": lambda: os.uname().sysname,
    "os.kernel": lambda: os.uname().release,
    "os.machine": lambda: os.uname().machine,
    "os.libc": _libc,
    "os.distribution": _distribution,
    "os.container": _container,
}


class _DriverError(Exception):
    """What the driver answered instead of a value."""


_NOT_SUPPORTED = 3
_ANSWERS = {4: "no permission", 9: "the driver is not loaded", 15: "the device is lost"}


class _Driver:
    """The few functions of the NVIDIA Management Library that are asked here.

    Source:
        NVML API Reference Guide; an answer of 0 is success, 3 "not supported".
    """

    def __init__(self, library: str) -> None:
        import ctypes

        self._c = ctypes
        self._library = ctypes.CDLL(library)
        self._call("nvmlInit_v2")

    def close(self) -> None:
        # Counted by the library: the program's own use of it goes on.
        self._library.nvmlShutdown()

    def device(self, index: int) -> Any:
        handle = self._c.c_void_p()
        self._call("nvmlDeviceGetHandleByIndex_v2", self._c.c_uint(index), self._c.byref(handle))
        return handle

    def text(self, function: str, *device: Any) -> object:
        text = self._c.create_string_buffer(256)
        if not self._call(function, *device, text, self._c.c_uint(len(text))):
            return ABSENT
        return text.value.decode("utf-8", "replace")

    def numbers(self, function: str, *device: Any, count: int = 1) -> list[int] | None:
        values = [self._c.c_int() for _ in range(count)]
        if not self._call(function, *device, *map(self._c.byref, values)):
            return None
        return [value.value for value in values]

    def memory_bytes(self, device: Any) -> object:
        total_free_used = (self._c.c_ulonglong * 3)()
        if not self._call("nvmlDeviceGetMemoryInfo", device, total_free_used):
            return ABSENT
        return int(total_free_used[0])

    def _call(self, function: str, *arguments: Any) -> bool:
        try:
            answer = self._library[function](*arguments)
        except AttributeError:  # an older driver
            return False
        if answer not in (0, _NOT_SUPPORTED):
            told = _ANSWERS.get(answer, f"answer {answer}")
            raise _DriverError(f"{function}: {told}")
        return bool(answer == 0)


def _ask(driver: _Driver) -> dict[str, Json]:
    def count() -> int:
        numbers = driver.numbers("nvmlDeviceGetCount_v2")
        return numbers[0] if numbers else 0

    captured = {
        "gpu.driver": _read(lambda: driver.text("nvmlSystemGetDriverVersion")),
        "gpu.driver_cuda": _read(lambda: _cuda_version(driver)),
        "gpu.count": _read(count),
    }
    number = captured["gpu.count"] if isinstance(captured["gpu.count"], int) else 0
    for index in range(number):
        captured |= _ask_device(driver, index)
    return captured


def _ask_device(driver: _Driver, index: int) -> dict[str, Json]:
    try:
        device = driver.device(index)
    except Exception as error:
        return {f"gpu.{index}.name": failed(error)}
    probes: dict[str, Callable[[], object]] = {
        "name": lambda: driver.text("nvmlDeviceGetName", device),
        "uuid": lambda: driver.text("nvmlDeviceGetUUID", device),
        "vbios": lambda: driver.text("nvmlDeviceGetVbiosVersion", device),
        "capability": lambda: _capability(driver, device),
        "cores": lambda: _first(driver.numbers("nvmlDeviceGetNumGpuCores", device)),
        "memory_bytes": lambda: driver.memory_bytes(device),
        "ecc": lambda: _is_on(driver.numbers("nvmlDeviceGetEccMode", device, count=2)),
        "mig": lambda: _is_on(driver.numbers("nvmlDeviceGetMigMode", device, count=2)),
        "power_limit_mw": lambda: _first(
            driver.numbers("nvmlDeviceGetPowerManagementLimit", device)
        ),
    }
    return {f"gpu.{index}.{key}": _read(probe) for key, probe in probes.items()}


def _cuda_version(driver: _Driver) -> object:
    # What the driver can serve, not what any library was built with.
    number = driver.numbers("nvmlSystemGetCudaDriverVersion_v2")
    return f"{number[0] // 1000}.{number[0] % 1000 // 10}" if number else ABSENT


def _capability(driver: _Driver, device: Any) -> object:
    pair = driver.numbers("nvmlDeviceGetCudaComputeCapability", device, count=2)
    return f"{pair[0]}.{pair[1]}" if pair else ABSENT


def _first(numbers: list[int] | None) -> object:
    return numbers[0] if numbers else ABSENT


def _is_on(current_and_pending: list[int] | None) -> object:
    return bool(current_and_pending[0]) if current_and_pending else ABSENT
