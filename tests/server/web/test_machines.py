"""What a run ran on, in a few words."""

from __future__ import annotations

from manifest.canonical import ABSENT
from manifest_server.web.machines import count_machines, machine


def test_names_accelerators_and_processor() -> None:
    hardware = {
        "gpu.0.name": "H100",
        "gpu.1.name": "H100",
        "gpu.driver": ABSENT,
        "cpu.model": "EPYC",
        "cpu.count": 1,
    }

    assert machine(hardware) == "2 × H100 · EPYC · 1 processor"


def test_says_nothing_where_nothing_is_known() -> None:
    assert machine({"gpu.0.name": {"$failed": "no driver"}, "cpu.count": "many"}) == ""


def test_tells_machines_apart_by_what_does_not_change_on_them() -> None:
    one = {"cpu.model": "EPYC", "gpu.0.uuid": "GPU-1", "os.kernel": "6.1"}

    assert count_machines([one, {**one, "os.kernel": "6.2"}, {}]) == 1
    assert count_machines([one, {**one, "gpu.0.uuid": "GPU-2"}]) == 2
