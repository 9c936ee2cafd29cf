"""Accelerators of AMD and Intel, as the kernel describes them in its files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from manifest.canonical import ABSENT, Json

_LONGEST = 4096
_CARD = re.compile(r"card[0-9]+")
_INTEL = "0x8086"
_DRIVERS_OF_INTEL = ("xe", "i915")
_HEAPS_OF_DEVICE = ("1", "2")  # memory of its own, visible to the host or not


def capture_devices(root: str = "/") -> dict[str, Json]:
    """Describe every accelerator of AMD that can compute, and of Intel that is driven.

    Nothing is said of a maker without any.

    Args:
        root: Where ``sys`` is found.

    Source:
        Linux, drivers/gpu/drm/amd/amdkfd/kfd_topology.c, and Documentation/gpu/amdgpu.
    """
    sysfs = os.path.join(root, "sys")
    captured: dict[str, Json] = {}
    for maker, devices in (("amd", _of_amd(sysfs)), ("intel", _of_intel(sysfs))):
        for index, device in enumerate(devices):
            captured |= {f"gpu.{maker}{index}.{key}": value for key, value in device.items()}
    return captured


def _of_amd(sysfs: str) -> Iterator[dict[str, Json]]:
    driver = _text(f"{sysfs}/module/amdgpu/version")
    nodes = f"{sysfs}/class/kfd/kfd/topology/nodes"
    for node in _numbered(nodes):
        told = _properties(f"{nodes}/{node}/properties")
        if not told.get("simd_count"):  # a processor
            continue
        device = f"{sysfs}/class/drm/renderD{told.get('drm_render_minor')}/device"
        yield {
            "name": _text(f"{device}/product_name") or f"0x{told.get('device_id', 0):04x}",
            "target": _target(told.get("gfx_target_version", 0)),
            "compute_units": told["simd_count"] // (told.get("simd_per_cu") or 1),
            "memory_bytes": _memory_bytes(f"{nodes}/{node}/mem_banks"),
            "partition": _text(f"{device}/current_compute_partition") or ABSENT,
            "uuid": f"{told['unique_id']:016x}" if told.get("unique_id") else ABSENT,
            "vbios": _text(f"{device}/vbios_version") or ABSENT,
            "driver": driver or ABSENT,  # the kernel's own has no version but the kernel's
        }


def _of_intel(sysfs: str) -> Iterator[dict[str, Json]]:
    cards = f"{sysfs}/class/drm"
    for card in _listed(cards):
        device = f"{cards}/{card}/device"
        driver = os.path.basename(os.path.realpath(f"{device}/driver"))
        if not _CARD.fullmatch(card) or _text(f"{device}/vendor") != _INTEL:
            continue
        if driver in _DRIVERS_OF_INTEL:
            memory = _text(f"{cards}/{card}/lmem_total_bytes")
            version = _text(f"{sysfs}/module/{driver}/version")
            yield {
                "name": _text(f"{device}/device"),
                "memory_bytes": int(memory) if memory.isdecimal() else ABSENT,
                "pci": os.path.basename(os.path.realpath(device)),
                "driver": f"{driver} {version}".strip(),
            }


def _properties(path: str) -> dict[str, int]:
    lines = (line.split() for line in _text(path).splitlines())
    return {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdecimal()}


def _memory_bytes(banks: str) -> Json:
    told = (_properties(f"{banks}/{bank}/properties") for bank in _numbered(banks))
    own = [each for each in told if str(each.get("heap_type")) in _HEAPS_OF_DEVICE]
    return sum(each.get("size_in_bytes", 0) for each in own) or ABSENT


def _target(version: int) -> Json:
    # 90402 is gfx942: two decimal digits each, written as hexadecimal ones.
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}" if version else ABSENT


def _numbered(folder: str) -> list[str]:
    return sorted((name for name in _listed(folder) if name.isdecimal()), key=int)


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder), key=lambda name: (len(name), name))
    except OSError:
        return []


def _text(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            return (file.read(_LONGEST) or b"").decode("utf-8", "replace").strip()
    except OSError:
        return ""
