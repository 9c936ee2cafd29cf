"""Processor, memory, operating system, and accelerators as their driver describes them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from manifest.canonical import ABSENT, Json, attempted, plain
from manifest.environment import kernel, nvidia

_CPUINFO = "/proc/cpuinfo"
_FIRST_PROCESSOR = 16_384  # bytes; the rest repeats it for every processor
_MOST_OF_MOUNTS = 2**20
_PERIOD_US = 100_000

# Instruction sets that choose kernels in numeric libraries.
_X86 = re.compile(r"avx.*|amx.*|fma4?|f16c|sse4_[12]")
_ARM = re.compile(r"asimd.*|sve.*|sme.*|fphp|fcma|bf16|i8mm")


def capture_hardware() -> dict[str, Json]:
    """Read the processor, memory and system; cheap, and touches no accelerator."""
    processor = _first_processor()
    captured = {key: attempted(probe) for key, probe in _PROBES.items()}
    captured |= {f"cpu.{key}": plain(value) for key, value in _describe(processor).items()}
    return captured


def capture_accelerators(library: str = "libnvidia-ml.so.1", root: str = "/") -> dict[str, Json]:
    """Ask the drivers for their accelerators, without making a context on any.

    Takes milliseconds, or longer where a driver sleeps: for a background thread or a launcher.

    Args:
        library: The management library of NVIDIA's driver, by name or path.
        root: Where ``sys``, in which other drivers say what there is, is found.
    """
    return nvidia.capture_nvidia(library) | kernel.capture_devices(root)


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


def _image(told: str = "/run/.containerenv") -> object:
    # Podman alone tells its containers which image they are of.
    try:
        with open(told, encoding="utf-8", errors="replace") as file:
            pairs = dict(line.strip().partition("=")[::2] for line in file)
    except FileNotFoundError:
        return ABSENT
    return pairs.get("imageid", "").strip('"') or ABSENT


def _container_id(process: str = "/proc/self") -> object:
    # By the files that the container's engine lends it, or by its control group.
    for path, form in (
        (f"{process}/mountinfo", r"containers/([0-9a-f]{64})/"),
        (f"{process}/cgroup", r"[/-]([0-9a-f]{64})(?:\.scope)?$"),
    ):
        with open(path, encoding="utf-8", errors="replace") as file:
            found = re.search(form, file.read(_MOST_OF_MOUNTS), re.MULTILINE)
        if found is not None:
            return found[1]
    return ABSENT


def _quota(groups: str = "/sys/fs/cgroup") -> object:
    # Processors that the control group may keep busy; not how many there are.
    for path in (f"{groups}/cpu.max", f"{groups}/cpu/cpu.cfs_quota_us"):
        try:
            with open(path, encoding="ascii") as file:
                quota, *period = file.read().split()
        except FileNotFoundError:
            continue
        if quota in ("max", "-1"):
            return ABSENT
        return int(quota) / int(period[0] if period else _PERIOD_US)
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
    "os.container_id": _container_id,
    "os.container_image": _image,
    "cpu.quota": _quota,
}
