"""Accelerators of AMD and Intel, in files as the kernel makes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifest.catalogue import lookup
from manifest.environment.hardware import capture_accelerators
from manifest.environment.kernel import capture_devices

PROCESSOR = "cpu_cores_count 96\nsimd_count 0\nmem_banks_count 1\nunique_id 0\n"
MI300X = """\
cpu_cores_count 0
simd_count 1216
mem_banks_count 1
array_count 32
simd_per_cu 4
gfx_target_version 90402
vendor_id 4098
device_id 29857
drm_render_minor 128
unique_id 10561337853127442177
"""
OLDER = "simd_count 240\nsimd_per_cu 4\ngfx_target_version 90010\ndevice_id 29580\n"
HBM = "heap_type 1\nsize_in_bytes 206141652992\nflags 0\nwidth 8192\n"
SYSTEM = "heap_type 0\nsize_in_bytes 1000\n"


def write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


@pytest.fixture
def amd(tmp_path: Path) -> Path:
    nodes = "sys/class/kfd/kfd/topology/nodes"
    device = "sys/class/drm/renderD128/device"
    write(
        tmp_path,
        {
            f"{nodes}/0/properties": PROCESSOR,
            f"{nodes}/2/properties": MI300X,
            f"{nodes}/2/mem_banks/0/properties": HBM,
            f"{nodes}/2/mem_banks/1/properties": SYSTEM,
            f"{nodes}/10/properties": OLDER,
            f"{device}/product_name": "AMD Instinct MI300X OAM\n",
            f"{device}/vbios_version": "113-M3000100-102\n",
            f"{device}/current_compute_partition": "SPX\n",
            "sys/module/amdgpu/version": "6.10.5\n",
        },
    )
    return tmp_path


def test_what_can_compute_of_amd_is_described(amd: Path) -> None:
    captured = capture_devices(str(amd))
    first = {k.removeprefix("gpu.amd0."): v for k, v in captured.items() if "amd0" in k}
    assert first == {
        "name": "AMD Instinct MI300X OAM",
        "target": "gfx942",
        "compute_units": 304,
        "memory_bytes": 206141652992,
        "partition": "SPX",
        "uuid": f"{10561337853127442177:016x}",
        "vbios": "113-M3000100-102",
        "driver": "6.10.5",
    }
    assert captured["gpu.amd1.name"] == "0x738c"
    assert captured["gpu.amd1.target"] == "gfx90a"
    assert captured["gpu.amd1.compute_units"] == 60
    assert "gpu.amd2.name" not in captured


def test_what_is_driven_of_intel_is_described(tmp_path: Path) -> None:
    devices = tmp_path / "sys" / "devices"
    for card, (vendor, driver, memory) in {
        "card0": ("0x1a03", "ast", ""),  # shows a console
        "card1": ("0x8086", "xe", ""),
        "card10": ("0x8086", "i915", "51539607552"),
        "card1-DP-1": ("0x8086", "xe", ""),
        "card3": ("0x8086", "vfio-pci", ""),
    }.items():
        address = devices / f"0000:{card}"
        write(address, {"vendor": f"{vendor}\n", "device": "0x0bd5\n", "drivers/x": ""})
        (address / "driver").symlink_to(tmp_path / "sys" / "drivers" / driver)
        folder = tmp_path / "sys" / "class" / "drm" / card
        folder.mkdir(parents=True)
        (folder / "device").symlink_to(address)
        if memory:
            (folder / "lmem_total_bytes").write_text(memory)
    write(tmp_path, {"sys/module/i915/version": "1.23\n"})
    captured = capture_devices(str(tmp_path))
    assert captured["gpu.intel0.name"] == "0x0bd5"
    assert captured["gpu.intel0.driver"] == "xe"
    assert captured["gpu.intel0.memory_bytes"] == {"$absent": True}
    assert captured["gpu.intel0.pci"] == "0000:card1"
    assert captured["gpu.intel1.driver"] == "i915 1.23"
    assert captured["gpu.intel1.memory_bytes"] == 51539607552
    assert len({key.split(".")[1] for key in captured}) == 2


def test_a_machine_without_any_has_nothing_to_say(tmp_path: Path) -> None:
    assert capture_devices(str(tmp_path)) == {}


def test_files_that_make_no_sense_are_no_harm(amd: Path) -> None:
    nodes = amd / "sys/class/kfd/kfd/topology/nodes"
    (nodes / "2" / "properties").write_bytes(b"simd_count \xff\nsimd_count 8\nsimd_per_cu 0\nx\n")
    captured = capture_devices(str(amd))
    assert captured["gpu.amd0.compute_units"] == 8
    assert captured["gpu.amd0.memory_bytes"] == 206141652992


def test_all_makers_are_told_together_and_the_catalogue_knows_each_fact(amd: Path) -> None:
    captured = capture_accelerators(str(amd / "no-such-library"), str(amd))
    assert {"gpu.driver", "gpu.amd0.name"} <= set(captured)
    impacts = {}
    for key in captured:
        known = lookup("hardware", key)
        assert known is not None
        assert known.key != "gpu.*", f"{key} is only known as some property of a GPU"
        impacts[key] = known.impact
    assert impacts["gpu.amd0.compute_units"] == impacts["gpu.amd0.target"] == "certain"
    assert impacts["gpu.amd0.uuid"] == "informational"
    assert impacts["gpu.amd0.driver"] == "possible"
