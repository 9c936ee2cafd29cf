"""The sums of `lanes` in one launch, on NVIDIA's devices: a kernel of our own, for their driver.

Made of PyTorch's operations, the sums of a step take longer than many steps do. The kernel lies
beside this file, as source and as what `nvcc` makes of it for all devices since 2017; the driver
translates it when it is first needed. It allocates nothing, and starts nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from manifest.pytorch.lanes import ROW_LANES, as_lanes, lane_weights, row_weights
from manifest.pytorch.transfers import Slates, Words, copied

_NAME: Final = b"manifest_sums"
_THREADS: Final = 256
_MOST_TENSORS: Final = 480  # of a launch, whose arguments are 4 kB at most
_ROW_BYTES: Final = 4 * ROW_LANES
_FEWEST_ROWS: Final = 16  # of a piece, so that its weights are worth fetching
_MOST_PIECES: Final = 4096
_MOST_PLANS: Final = 256

_DENSE: Final = frozenset((Tensor, torch.nn.Parameter))

_Addresses = ctypes.c_uint64 * _MOST_TENSORS
_Pointers = ctypes.c_uint64 * 5
_Arguments = ctypes.c_void_p * 6


class Driver:
    """What of NVIDIA's driver is used; PyTorch has loaded it by the time that it has a device.

    Raises:
        OSError: There is no driver.
        RuntimeError: It has no such device, or does not understand the kernel.
    """

    def __init__(self) -> None:
        library = ctypes.CDLL("libcuda.so.1")
        module, self._function = ctypes.c_void_p(), ctypes.c_void_p()
        code = Path(__file__).with_name("sums.ptx").read_bytes()
        _check(library.cuModuleLoadData(ctypes.byref(module), ctypes.c_char_p(code)))
        _check(library.cuModuleGetFunction(ctypes.byref(self._function), module, _NAME))
        self._launch = library.cuLaunchKernel
        self._launch.argtypes = [
            ctypes.c_void_p,
            *[ctypes.c_uint] * 7,
            *[ctypes.c_void_p] * 3,
        ]

    def launch(
        self, blocks: int, addresses: Sequence[int], pointers: Sequence[int], stream: int
    ) -> None:
        """Start the kernel behind what the stream has to do already."""
        by_value, pointed = _Addresses(*addresses), _Pointers(*pointers)
        start = ctypes.addressof(pointed)
        arguments = _Arguments(ctypes.addressof(by_value), *range(start, start + 40, 8))
        _check(
            self._launch(self._function, blocks, 1, 1, _THREADS, 1, 1, 0, stream, arguments, None)
        )


@dataclass(slots=True)
class _Launch:
    """What stays the same from step to step."""

    first: int
    tables: Tensor
    blocks: int
    pointers: tuple[int, int]


class SumsKernel:
    """Sums tensors of one device.

    Args:
        device: Of CUDA; the present device of this thread, with which it has worked before.
        driver: Starts the kernel there.
        stream_of: Gives the present stream of a device, by its number.
    """

    def __init__(
        self,
        device: torch.device,
        driver: Any = None,
        stream_of: Callable[[int], int] | None = None,
    ) -> None:
        self._device = device
        self._launch = (driver or Driver()).launch
        self._stream_of = stream_of or torch._C._cuda_getCurrentRawStream
        self._slates = Slates(device)
        self._lane_weights = lane_weights(device)
        self._row_weights = row_weights(0, 1).to(device)
        self._plans: dict[tuple[int, ...], list[_Launch]] = {}

    def sums(self, tensors: Sequence[Tensor]) -> Words | None:
        """Two words for each tensor; None if one of them is of a kind that the kernel cannot read.

        Nothing is kept alive: the memory of a tensor that ends is given to others only behind the
        kernel, in the order of its stream.
        """
        held: list[Tensor] = []
        places = [place for tensor in tensors if (place := _place(tensor, held)) is not None]
        if len(places) < len(tensors):
            return None
        return self.sums_at([at for at, _ in places], tuple([size for _, size in places]))

    def sums_at(self, addresses: Sequence[int], sizes: tuple[int, ...]) -> Words:
        """Two words for each of so many bytes, which lie at these addresses of the device."""
        stream = self._stream_of(self._device.index)
        words, at = self._slates.take(2 * len(sizes), stream)
        for launch in self._plans.get(sizes) or self._planned(sizes):
            some = addresses[launch.first : launch.first + _MOST_TENSORS]
            weights = self._lane_weights.data_ptr(), self._row_weights.data_ptr()
            pointers = (*launch.pointers, *weights, at + 16 * launch.first)
            self._launch(launch.blocks, some, pointers, stream)
        if stream:  # what is not the first of all streams may be gone when the step is over
            words.send(copied)
        return words

    def _planned(self, sizes: tuple[int, ...]) -> list[_Launch]:
        if len(self._plans) >= _MOST_PLANS:
            self._plans.clear()
        rows = [-(-size // _ROW_BYTES) for size in sizes]
        self._weigh(max(rows, default=0))
        starts = range(0, len(sizes), _MOST_TENSORS)
        planned = [self._one(start, sizes, rows) for start in starts]
        found = self._plans[sizes] = [launch for launch in planned if launch.blocks]
        return found

    def _one(self, first: int, sizes: Sequence[int], rows: Sequence[int]) -> _Launch:
        some = slice(first, first + _MOST_TENSORS)
        pieces = _pieces(rows[some])
        words = [*sizes[some], *(word for piece in pieces for word in piece)]
        tables = torch.tensor(words, dtype=torch.int64, device="cpu")
        if self._device.type == "cuda":  # from memory of other kinds, the copy would be waited for
            tables = tables.pin_memory()
        tables = tables.to(self._device, non_blocking=True)
        start = tables.data_ptr()
        return _Launch(first, tables, len(pieces), (start, start + 8 * len(sizes[some])))

    def _weigh(self, rows: int) -> None:
        if rows > len(self._row_weights):
            self._row_weights = row_weights(0, 1 << (rows - 1).bit_length()).to(self._device)


def _pieces(rows: Sequence[int]) -> list[tuple[int, int, int]]:
    """Tensor, first row and number of rows of each piece, so that there are not too many."""
    most = max(_FEWEST_ROWS, -(-sum(rows) // _MOST_PIECES))
    return [
        (number, first, min(most, total - first))
        for number, total in enumerate(rows)
        for first in range(0, total, most)
    ]


def _place(tensor: Tensor, held: list[Tensor]) -> tuple[int, int] | None:
    """Address and bytes of a tensor, or of a copy that has a form which the kernel reads."""
    if not is_read_in_place(tensor):
        tensor = as_lanes(tensor)
        held.append(tensor)
        if not is_read_in_place(tensor):
            return None
    return tensor.data_ptr(), tensor.nbytes


def is_read_in_place(tensor: Tensor) -> bool:
    """Whether the kernel reads a tensor of the device where it lies."""
    if type(tensor) not in _DENSE or not tensor.is_contiguous():
        return False
    if tensor.is_conj() or tensor.is_neg():
        return False
    return has_bytes_at(tensor, tensor.data_ptr())


def has_bytes_at(tensor: Tensor, address: int) -> bool:
    """Whether all bytes of a contiguous tensor lie there, on four bytes."""
    if address % 4:
        return False
    if tensor.storage_offset():
        # What was freed (sharded training does it) has no address, but for an offset from none.
        reach = tensor.nbytes + tensor.storage_offset() * tensor.itemsize
        return bool(tensor.untyped_storage().nbytes() >= reach)
    return address != 0 or not tensor.numel()


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"NVIDIA's driver answered {status}")
