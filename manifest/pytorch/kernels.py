"""The sums of `lanes` in one launch, on NVIDIA's devices: a kernel of our own, for their driver.

Made of PyTorch's operations, the sums of a step take longer than many steps do. The kernel lies
beside this file, as source and as what `nvcc --ptx` makes of it for all devices since 2017; the
driver translates it when it is first needed. It allocates nothing, and starts nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from manifest.pytorch.lanes import ROW_LANES, as_lanes, lane_weights, row_weights

_NAME: Final = b"manifest_sums"
_THREADS: Final = 256
_ROW_BYTES: Final = 4 * ROW_LANES
_FEWEST_ROWS: Final = 16  # of a piece, so that its weights are worth fetching
_MOST_PIECES: Final = 4096
_MOST_PLANS: Final = 256

_DENSE: Final = frozenset((Tensor, torch.nn.Parameter))


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

    def launch(self, blocks: int, pointers: Sequence[int], stream: int) -> None:
        """Start the kernel behind what the stream has to do already."""
        values = (ctypes.c_void_p * len(pointers))(*pointers)
        start, size = ctypes.addressof(values), ctypes.sizeof(ctypes.c_void_p)
        places = range(start, start + len(pointers) * size, size)
        arguments = (ctypes.c_void_p * len(pointers))(*places)
        grid, block = (blocks, 1, 1), (_THREADS, 1, 1)
        _check(
            self._launch(self._function, *grid, *block, 0, ctypes.c_void_p(stream), arguments, None)
        )


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
        stream_of: Any = None,
    ) -> None:
        self._device = device
        self._driver = driver or Driver()
        self._stream_of = stream_of or torch._C._cuda_getCurrentRawStream
        self._lane_weights = lane_weights(device)
        self._row_weights = row_weights(0, 1).to(device)
        self._tables: dict[tuple[int, ...], Tensor] = {}
        self._plans: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}

    def sums(self, tensors: Sequence[Tensor]) -> Tensor | None:
        """As `lanes.sums_by_operations`; None if one of the tensors is of a kind that it cannot.

        Nothing is kept alive: the memory of a tensor that ends is given to others only behind the
        kernel, in the order of its stream.
        """
        sums = torch.zeros(len(tensors), 2, dtype=torch.int64, device=self._device)
        held: list[Tensor] = []
        places = [_place(tensor, held) for tensor in tensors]
        if None in places:
            return None
        addresses = tuple([place[0] for place in places if place])
        sizes = tuple([place[1] for place in places if place])
        size_table, pieces = self._plan(sizes)
        if len(pieces):
            pointed = (
                self._table(addresses),
                size_table,
                pieces,
                self._lane_weights,
                self._row_weights,
                sums,
            )
            pointers = [each.data_ptr() for each in pointed]
            self._driver.launch(len(pieces), pointers, self._stream_of(self._device.index))
        return sums

    def _table(self, addresses: tuple[int, ...]) -> Tensor:
        # Gradients are made anew at each step, but mostly where earlier ones were.
        found = self._tables.get(addresses)
        if found is None:
            if len(self._tables) >= _MOST_PLANS:
                self._tables.clear()
            found = self._tables[addresses] = self._uploaded(addresses)
        return found

    def _plan(self, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        found = self._plans.get(sizes)
        if found is None:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            rows = [-(-size // _ROW_BYTES) for size in sizes]
            self._weigh(max(rows, default=0))
            pieces = [word for piece in _pieces(rows) for word in piece]
            found = self._uploaded(sizes), self._uploaded(pieces).view(-1, 3)
            self._plans[sizes] = found
        return found

    def _weigh(self, rows: int) -> None:
        if rows > len(self._row_weights):
            self._row_weights = row_weights(0, 1 << (rows - 1).bit_length()).to(self._device)

    def _uploaded(self, words: Sequence[int]) -> Tensor:
        table = torch.tensor(words, dtype=torch.int64, device="cpu")
        if self._device.type == "cuda":  # from memory of other kinds, the copy would be waited for
            table = table.pin_memory()
        return table.to(self._device, non_blocking=True)


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
    if not _is_read_in_place(tensor):
        tensor = as_lanes(tensor)
        held.append(tensor)
        if not _is_read_in_place(tensor):
            return None
    return tensor.data_ptr(), tensor.nbytes


def _is_read_in_place(tensor: Tensor) -> bool:
    if type(tensor) not in _DENSE or not tensor.is_contiguous():
        return False
    if tensor.is_conj() or tensor.is_neg():
        return False
    address = tensor.data_ptr()
    if tensor.storage_offset():
        # What was freed (sharded training does it) has no address, but for an offset from none.
        reach = tensor.nbytes + tensor.storage_offset() * tensor.itemsize
        return address % 4 == 0 and tensor.untyped_storage().nbytes() >= reach
    return address % 4 == 0 and (address != 0 or not tensor.numel())


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"NVIDIA's driver answered {status}")
