"""Sums of accelerators: the kernel's are those of PyTorch's operations, or it is not used."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from manifest.pytorch.kernels import SumsKernel
from manifest.pytorch.lanes import ROW_LANES, sums_by_operations
from manifest.pytorch.sums import Trial, device_sums

HOST = torch.device("cpu")


class HostDriver:
    """Runs the kernel as a program of the host."""

    def __init__(self, library: Path) -> None:
        self._launch = ctypes.CDLL(str(library)).launch
        self.launches = 0

    def launch(
        self, blocks: int, addresses: Sequence[int], pointers: Sequence[int], stream: int
    ) -> None:
        assert stream == 0
        self.launches += 1
        by_value = (ctypes.c_uint64 * 480)(*addresses)
        self._launch(blocks, by_value, (ctypes.c_void_p * len(pointers))(*pointers))


@pytest.fixture(scope="module")
def library(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    library = tmp_path_factory.mktemp("kernel") / "sums.so"
    source = Path(__file__).with_name("on_host.cpp")
    options = ["-O1", "-shared", "-fPIC", "-I", str(checkout / "manifest" / "pytorch")]
    subprocess.run(["g++", *options, "-o", str(library), str(source)], check=True)
    return library


@pytest.fixture
def driver(library: Path) -> HostDriver:
    return HostDriver(library)


@pytest.fixture
def kernel(driver: HostDriver) -> SumsKernel:
    return SumsKernel(HOST, driver, stream_of=lambda _: 0)


def sums(kernel: SumsKernel, tensors: Sequence[Tensor]) -> list[int] | None:
    found = kernel.sums(tensors)
    return None if found is None else found.tensor().tolist()


def by_operations(tensors: Sequence[Tensor]) -> list[int]:
    return sums_by_operations(tensors).view(-1).tolist()


def of_every_kind() -> list[Tensor]:
    numbers = torch.randn(3 * ROW_LANES + 5)
    octets = torch.arange(250, dtype=torch.uint8)
    return [
        numbers,
        numbers[1:],  # on four bytes, not on sixteen
        numbers[:0],
        nn.Parameter(torch.randn(7, 9)),
        torch.randn(17, 4096).t(),
        torch.randn(5, dtype=torch.complex64).conj(),
        torch.randn(3, dtype=torch.bfloat16),
        octets[1:18],  # on one byte
        octets[:1],
        torch.randint(-(2**63), 2**63 - 1, (33, ROW_LANES)),  # of several pieces
        torch.tensor(-0.0),
    ]


def test_the_kernel_sums_as_the_operations_do(kernel: SumsKernel, driver: HostDriver) -> None:
    tensors = of_every_kind()
    for _ in range(2):  # the second time by what was kept of the first
        assert sums(kernel, tensors) == by_operations(tensors)
    assert driver.launches == 2
    assert device_sums(tensors).tensor().tolist() == by_operations(tensors)


def test_many_tensors_take_several_launches(kernel: SumsKernel, driver: HostDriver) -> None:
    tensors = [torch.full((number % 7,), number) for number in range(1000)]
    assert sums(kernel, tensors) == by_operations(tensors)
    assert driver.launches == 3


def test_a_change_of_one_bit_shows(kernel: SumsKernel) -> None:
    weight = torch.randn(2 * ROW_LANES + 3)
    before = sums(kernel, [weight])
    weight.view(torch.int32)[ROW_LANES + 1] ^= 1
    after = sums(kernel, [weight])
    assert before != after
    assert after == by_operations([weight])


def test_what_the_driver_is_given_takes_the_arguments_of_the_source(checkout: Path) -> None:
    text = (checkout / "manifest" / "pytorch" / "sums.ptx").read_text()
    arguments = re.search(r"entry manifest_sums\((.*?)\)", text, re.DOTALL)
    assert arguments is not None
    kinds = re.findall(r"\.param (?:\.align 8 )?(\.\w+) \w+?_param_\d(\[\d+\])?", arguments[1])
    assert kinds == [(".b8", "[3840]"), *[(".u64", "")] * 5]
    assert "\n.version 7.7\n.target sm_70\n" in text


def test_what_was_freed_is_not_read(kernel: SumsKernel, driver: HostDriver) -> None:
    freed, shrunk = torch.randn(8), torch.randn(8)[2:]
    for tensor in (freed, shrunk):
        tensor.untyped_storage().resize_(0)
        assert kernel.sums([torch.ones(2), tensor]) is None
    assert driver.launches == 0


def test_nothing_to_read_starts_nothing(kernel: SumsKernel, driver: HostDriver) -> None:
    assert sums(kernel, [torch.empty(0), torch.empty(3, 0)]) == [0, 0, 0, 0]
    assert driver.launches == 0


class Event:
    def __init__(self) -> None:
        self.is_done = False

    def query(self) -> bool:
        return self.is_done


def test_a_kernel_is_used_once_the_device_has_shown_that_it_is_right(kernel: SumsKernel) -> None:
    event, tensors = Event(), [torch.randn(5)]
    trial = Trial(HOST, lambda _: kernel, transfer=lambda both: (both, event))
    assert trial.kernel() is None
    event.is_done = True
    found = trial.kernel()
    assert found is kernel
    assert sums(found, tensors) == by_operations(tensors)


class WrongDriver(HostDriver):
    def launch(
        self, blocks: int, addresses: Sequence[int], pointers: Sequence[int], stream: int
    ) -> None:
        super().launch(blocks - 1, addresses, pointers, stream)


def test_a_kernel_that_is_wrong_is_never_used(library: Path) -> None:
    event = Event()
    event.is_done = True

    def make(device: torch.device) -> SumsKernel:
        return SumsKernel(device, WrongDriver(library), stream_of=lambda _: 0)

    trial = Trial(HOST, make, transfer=lambda both: (both, event))
    assert trial.kernel() is None


def test_without_a_driver_there_is_no_kernel() -> None:
    def make(device: torch.device) -> SumsKernel:
        raise OSError("libcuda.so.1: cannot open shared object file")

    assert Trial(HOST, make).kernel() is None
