"""Accelerators: PyTorch's own modules, with generators of devices that this machine lacks."""

from __future__ import annotations

import base64
import struct
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch._utils import _LazySeedTracker

from manifest import accelerators
from manifest.errors import StateNotRestorable
from manifest.generators import capture_generators, is_shared, restore_generators
from manifest.pytorch.states import Generators
from manifest.states import setter_of

LAZY = ("cuda", "xpu", "mtia")


class Device:
    """The generator of one device, as its driver's library keeps it."""

    def __init__(self, state: bytes) -> None:
        self.state = state

    def get_state(self) -> torch.Tensor:
        return torch.tensor(list(self.state), dtype=torch.uint8)

    def set_state(self, state: torch.Tensor) -> None:
        assert state.dtype == torch.uint8
        self.state = bytes(state.tolist())

    def manual_seed(self, seed: int) -> None:
        self.state = philox(seed, 0)


Start = Callable[..., list[Device]]


def philox(seed: int, offset: int) -> bytes:
    return struct.pack("<QQ", seed, offset)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    """Make PyTorch find that it has started devices with these states."""

    def start(backend: str, *given: bytes) -> list[Device]:
        devices = [Device(state) for state in given]
        module = getattr(torch, backend)
        monkeypatch.setattr(module, "_initialized", True)
        monkeypatch.setattr(module, "default_generators", tuple(devices))
        return devices

    return start


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device(struct.pack("<7IQQ", *range(7), 5, 8))
    monkeypatch.setattr(torch.mps, "_default_mps_generator", device)
    return device


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Device:
    """A backend of somebody's, which gives functions and no generators."""
    device, module = Device(b"anything of its own"), ModuleType("somebody")
    name = torch._C._get_privateuse1_backend_name()
    functions: dict[str, Callable[..., object]] = {
        "is_initialized": lambda: True,
        "_is_in_bad_fork": lambda: False,
        "device_count": lambda: 1,
        "get_rng_state": lambda index: device.get_state(),
        "set_rng_state": lambda state, index: device.set_state(state),
    }
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, f"torch.{name}", module)
    return device


def of_devices() -> dict[str, Any]:
    return {name: state for name, state in capture_generators().items() if "torch." in name}


def encoded(state: bytes) -> dict[str, str]:
    return {"$bytes": base64.b64encode(state).decode()}


def test_nothing_is_said_of_devices_that_were_not_started() -> None:
    torch.manual_seed(3)  # which waits for CUDA, where PyTorch is built with it
    assert [name for name, found in of_devices().items() if "state" in found] == ["torch.cpu"]


@pytest.mark.parametrize("backend", ["cuda", "xpu"])
def test_seed_and_offset_of_each_device_can_be_read(backend: str, start: Start) -> None:
    start(backend, philox(7, 12), philox(2**63, 0))
    found = of_devices()
    assert found[f"torch.{backend}.0"] == {
        "kind": f"torch.{backend}",
        "state": encoded(philox(7, 12)),
        "seed": 7,
        "offset": 12,
    }
    assert found[f"torch.{backend}.1"]["seed"] == {"$int": str(2**63)}


def test_other_states_are_kept_with_the_version_that_knows_their_form(
    start: Start, apple: Device, registered: Device
) -> None:
    start("mtia", b"twelve bytes")
    name = torch._C._get_privateuse1_backend_name()
    found = of_devices()
    for key, state in (
        ("torch.mtia.0", b"twelve bytes"),
        ("torch.mps.0", apple.state),
        (f"torch.{name}.0", registered.state),
    ):
        kind = key.rpartition(".")[0]
        version = str(torch.__version__)
        assert found[key] == {"kind": kind, "state": encoded(state), "torch": version}
        assert is_shared(key)


def test_what_was_captured_is_put_back(start: Start, apple: Device, registered: Device) -> None:
    devices = [
        *start("cuda", philox(1, 4), philox(2, 8)),
        *start("xpu", philox(3, 16)),
        *start("mtia", b"mtia"),
        apple,
        registered,
    ]
    kept, before = capture_generators(), [device.state for device in devices]
    assert set(restore_generators(kept).values()) == {"equal already"}
    for device in devices:
        device.state = bytes(len(device.state))
    report = restore_generators(kept)
    assert [name for name, outcome in report.items() if outcome == "restored"] == list(kept)[-6:]
    assert [device.state for device in devices] == before


@pytest.mark.parametrize(
    ("backend", "state"),
    [
        ("cuda", philox(1, 3)),
        ("xpu", philox(1, 3)),
        ("xpu", bytes(17)),
        ("mps", bytes(40)),
        ("mps", bytes(36)),  # of an older version than the device here
        ("mtia", b""),
        ("mtia", bytes(70_000)),
        ("mtia", b"of another length"),
    ],
)
def test_a_state_of_another_form_is_refused_and_nothing_is_set(
    backend: str, state: bytes, start: Start, apple: Device
) -> None:
    devices = [start(backend, bytes(16))[0] for backend in LAZY]
    before = [device.state for device in (*devices, apple)]
    entry = {"kind": f"torch.{backend}", "state": encoded(state)}
    with pytest.raises(StateNotRestorable):
        restore_generators(
            {"torch.cuda.0": {"state": encoded(philox(9, 8))}, f"torch.{backend}.0": entry}
        )
    assert [device.state for device in (*devices, apple)] == before


def test_what_cannot_be_put_back_here_says_why(start: Start) -> None:
    start("mtia", b"mtia")
    other = {"state": encoded(b"mtiA"), "torch": "1.0"}
    unread = {"state": {"$failed": "RuntimeError: capturing"}}
    entries = {"torch.xpu.0": {"state": encoded(philox(1, 4))}, "torch.mtia.0": other}
    report = restore_generators({**entries, "torch.cuda.0": unread})
    assert report == {
        "torch.xpu.0": "skipped: the program has not started this device here",
        "torch.mtia.0": "skipped: recorded with torch 1.0, whose states may mean other things",
        "torch.cuda.0": "skipped: its state could not be read when it was recorded",
    }


def test_a_device_that_cannot_be_read_does_not_disturb_the_program(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get_state() -> torch.Tensor:
        raise RuntimeError("a stream is being captured")

    (device,) = start("cuda", philox(1, 4))
    monkeypatch.setattr(device, "get_state", get_state)
    assert "being captured" in of_devices()["torch.cuda.0"]["state"]["$failed"]


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make PyTorch believe that it was built for all devices, of which none has started."""
    for backend in LAZY:
        module = getattr(torch, backend)
        monkeypatch.setattr(module, "_is_compiled", lambda: True)
        tracker = _LazySeedTracker()  # type: ignore[no-untyped-call]
        monkeypatch.setattr(module, "_lazy_seed_tracker", tracker)


@pytest.mark.parametrize("backend", LAZY)
@pytest.mark.usefixtures("waiting")
def test_seeds_that_wait_for_a_device_are_told_in_their_order(backend: str) -> None:
    module = getattr(torch, backend)
    assert f"torch.{backend}" not in of_devices(), "nobody has seeded"
    torch.manual_seed(2**63)
    module.manual_seed(5)
    waits: list[Any] = [{"call": "manual_seed_all", "seed": {"$int": str(2**63)}}]
    waits.append({"call": "manual_seed", "seed": 5})
    assert of_devices()[f"torch.{backend}"] == {"kind": f"torch.{backend}", "waiting": waits}
    kept = of_devices()
    module.manual_seed_all(6)
    assert of_devices()[f"torch.{backend}"]["waiting"][-1]["seed"] == 6
    assert not module.is_initialized()
    assert restore_generators(kept)[f"torch.{backend}"] == "restored"
    assert of_devices() == kept


@pytest.mark.usefixtures("waiting")
def test_seeds_that_waited_are_given_at_once_to_a_device_that_has_started(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.xpu.manual_seed_all(5)
    kept = of_devices()
    devices = start("xpu", philox(1, 4), philox(1, 8))
    monkeypatch.setattr(torch.xpu.random, "device_count", lambda: 2)
    assert restore_generators(kept)["torch.xpu"] == "restored"
    assert [device.state for device in devices] == [philox(5, 0)] * 2


@pytest.mark.parametrize(
    "waits",
    [
        None,
        ["x"],
        [{"call": "manual_seed_all"}],
        [{"call": "empty_cache", "seed": 1}],
        [{"call": "manual_seed", "seed": "__import__"}],
        [{"call": "manual_seed", "seed": {"$int": "9" * 5000}}],
        [{"call": "manual_seed", "seed": 2**64}],
        [{"call": "manual_seed", "seed": 1.5}],
        [{"call": "manual_seed", "seed": 1}] * 3,
    ],
)
def test_seeds_of_another_form_are_refused(waits: Any) -> None:
    entry = {"kind": "torch.cuda", "waiting": waits}
    with pytest.raises(StateNotRestorable):
        accelerators.setter("torch.cuda", entry)


def test_each_step_sees_the_generators_of_all_devices(
    start: Start, apple: Device, registered: Device
) -> None:
    devices = {
        "cuda:0": start("cuda", philox(1, 4))[0],
        "xpu:0": start("xpu", philox(1, 4))[0],
        "mtia:0": start("mtia", bytes(8))[0],
        "mps:0": apple,
        f"{torch._C._get_privateuse1_backend_name()}:0": registered,
    }
    generators = Generators()
    before = generators.read().by_name()
    assert set(devices) < set(before)
    for name, device in devices.items():
        device.state = bytes([device.state[0] ^ 1]) + device.state[1:]
        after = generators.read().by_name()
        assert [key for key in after if after[key] != before[key]] == [name]
        before = after


@pytest.mark.parametrize(("device", "length"), [("xpu", 16), ("mps", 44), ("mtia", 20)])
def test_a_generator_of_the_programs_own_on_a_device_is_checked_by_its_kind(
    device: str, length: int
) -> None:
    class OnDevice(torch.Generator):
        """One whose device this machine lacks."""

    OnDevice.device = torch.device(device)
    other = Device(bytes(length))
    OnDevice.get_state = lambda self: other.get_state()  # type: ignore[method-assign]
    OnDevice.set_state = lambda self, state: other.set_state(state)  # type: ignore[assignment,method-assign,return-value]
    generator = OnDevice()
    setter_of("own", generator, b"\4" * length)()
    assert other.state == b"\4" * length
    with pytest.raises(StateNotRestorable):
        setter_of("own", generator, bytes(length + 4))
