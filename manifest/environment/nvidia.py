"""Accelerators of NVIDIA, as their driver describes them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from manifest.canonical import ABSENT, Json, attempted, failed

_MODULE = "/proc/driver/nvidia/version"

# Of a multiprocessor by compute capability, as in the CUDA C++ Programming Guide.
_CORES = {"6.0": 64, "7.0": 64, "7.2": 64, "7.5": 64, "8.0": 64} | dict.fromkeys(
    ("6.1", "6.2", "8.6", "8.7", "8.9", "9.0", "10.0", "10.1", "10.3", "11.0", "12.0", "12.1"), 128
)


def capture_nvidia(library: str = "libnvidia-ml.so.1") -> dict[str, Json]:
    """Ask the driver for its accelerators, without making a context on any.

    Args:
        library: The driver's management library, by name or path.
    """
    captured = {"gpu.module": attempted(_module)}
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


def _module() -> object:
    try:
        with open(_MODULE, encoding="utf-8", errors="replace") as file:
            return file.readline().strip()
    except FileNotFoundError:
        return ABSENT


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

    def slices(self, device: Any) -> list[Any]:
        """The slices that a device with MIG is cut into, and that take its place."""
        most = self.numbers("nvmlDeviceGetMaxMigDeviceCount", device)
        handles = []
        for index in range(most[0] if most else 0):
            handle = self._c.c_void_p()
            given = (device, self._c.c_uint(index), self._c.byref(handle))
            if self._library["nvmlDeviceGetMigDeviceHandleByIndex"](*given) == 0:
                handles.append(handle)
        return handles

    def multiprocessors(self, device: Any) -> object:
        """How many a slice has; of a whole device the driver does not say it."""
        attributes = (self._c.c_uint * 10)()  # nvmlDeviceAttributes_t begins with them
        if not self._call("nvmlDeviceGetAttributes_v2", device, attributes):
            return ABSENT
        return int(attributes[0])

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
        "gpu.driver": attempted(lambda: driver.text("nvmlSystemGetDriverVersion")),
        "gpu.driver_cuda": attempted(lambda: _cuda_version(driver)),
        "gpu.count": attempted(count),
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
    described = {key: attempted(probe) for key, probe in probes.items()}
    described["sm_count"] = _multiprocessors(described)
    if described["mig"] is True:
        described |= _ask_slices(driver, device)
    return {f"gpu.{index}.{key}": value for key, value in described.items()}


def _ask_slices(driver: _Driver, device: Any) -> dict[str, Json]:
    try:
        slices = driver.slices(device)
    except Exception as error:
        return {"mig.count": failed(error)}
    described: dict[str, Json] = {"mig.count": len(slices)}
    for index, each in enumerate(slices):
        described |= {
            f"mig.{index}.name": attempted(
                functools.partial(driver.text, "nvmlDeviceGetName", each)
            ),
            f"mig.{index}.uuid": attempted(
                functools.partial(driver.text, "nvmlDeviceGetUUID", each)
            ),
            f"mig.{index}.sm_count": attempted(functools.partial(driver.multiprocessors, each)),
            f"mig.{index}.memory_bytes": attempted(functools.partial(driver.memory_bytes, each)),
        }
    return described


def _multiprocessors(described: dict[str, Json]) -> Json:
    cores, capability = described["cores"], described["capability"]
    of_one = _CORES.get(capability) if isinstance(capability, str) else None
    if of_one is None or not isinstance(cores, int) or cores % of_one:
        return ABSENT
    return cores // of_one


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
