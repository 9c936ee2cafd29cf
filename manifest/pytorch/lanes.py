"""Fingerprints on an accelerator, `ml32x2`: two multilinear sums over 32-bit lanes.

Each tensor is cut into rows of lanes; a row is summed with one weight per lane, and the rows of a
tensor with one weight per row, twice with independent weights. Integer sums wrap, so that their
order does not matter: the same bits give the same sums on every device, however work is divided.
Nothing waits for the accelerator and nothing is drawn.

Here the sums are made of PyTorch's own operations, which every device has; `sums` takes what is
quicker where it can.

Source:
    D. Lemire and O. Kaser, "Strongly universal string hashing is fast", 2014 (multilinear).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

ROW_LANES: Final = 4096
_CHUNK_ROWS = 4096
_MOST_PLANS = 1024
_WEIGHTS_SEED = b"manifest ml32x2"


def sums_by_operations(tensors: Sequence[Tensor]) -> Tensor:
    """Sum the bits of each dense tensor of one device, in few launches whatever their number.

    Returns:
        ``[tensors, 2]`` of int64 on the same device.
    """
    with torch.no_grad():
        device = tensors[0].device
        sums = torch.zeros(len(tensors), 2, dtype=torch.int64, device=device)
        chunk = _Chunk(sums)
        for index, tensor in enumerate(tensors):
            lanes = as_lanes(tensor)
            for row, piece in enumerate(torch.split(lanes, ROW_LANES * _CHUNK_ROWS)):
                chunk.add(index, row * _CHUNK_ROWS, piece)
        chunk.flush()
        return sums


class _Chunk:
    """Rows of several tensors, summed together once there are enough of them."""

    def __init__(self, sums: Tensor) -> None:
        self._sums = sums
        self._pieces: list[Tensor] = []
        self._places: list[tuple[int, int, int]] = []
        self._rows = 0

    def add(self, index: int, first_row: int, lanes: Tensor) -> None:
        rows = -(-lanes.numel() // ROW_LANES)
        if rows == 0:
            return
        if self._rows + rows > _CHUNK_ROWS:
            self.flush()
        missing = rows * ROW_LANES - lanes.numel()
        self._pieces += [lanes, _zeros(lanes.device)[:missing]] if missing else [lanes]
        self._places.append((index, first_row, rows))
        self._rows += rows

    def flush(self) -> None:
        if not self._rows:
            return
        device = self._sums.device
        table = torch.cat(self._pieces).view(self._rows, ROW_LANES)
        tensor_of_row, weights_of_row = _row_plan(tuple(self._places), device)
        columns = [(table * weights).sum(1) for weights in lane_weights(device)]
        self._sums.index_add_(0, tensor_of_row, torch.stack(columns, 1) * weights_of_row)
        self._pieces, self._places, self._rows = [], [], 0


def as_lanes(tensor: Tensor) -> Tensor:
    """The elements in C order as int32, with zero bytes behind them where their number is odd."""
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().view(-1)
    octets = flat.view(torch.uint8)
    missing = -octets.numel() % 4
    if missing or octets.storage_offset() % 4:
        octets = torch.cat([octets, octets.new_zeros(missing)])
    return octets.view(torch.int32)


_constants: dict[Any, Any] = {}


def _zeros(device: torch.device) -> Tensor:
    if device not in _constants:
        _constants[device] = torch.zeros(ROW_LANES, dtype=torch.int32, device=device)
    found: Tensor = _constants[device]
    return found


def lane_weights(device: torch.device) -> Tensor:
    """A weight for each lane of a row, twice: ``[2, 4096]`` of int64."""
    key = ("lanes", device)
    if key not in _constants:
        words = constant_words(b"lanes", 0, 2 * ROW_LANES)
        _constants[key] = words.view(2, ROW_LANES).to(device)
    found: Tensor = _constants[key]
    return found


def row_weights(first: int, rows: int) -> Tensor:
    """A weight for each of these rows of a tensor, twice: ``[rows, 2]`` of int64, on the host."""
    return constant_words(b"rows", 2 * first, 2 * rows).view(rows, 2)


def _row_plan(
    places: tuple[tuple[int, int, int], ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    key = (places, device)
    if key not in _constants:
        if len(_constants) >= _MOST_PLANS:
            _constants.clear()
        index = [number for number, _, rows in places for _ in range(rows)]
        weights = [row_weights(first, rows) for _, first, rows in places]
        _constants[key] = (
            torch.tensor(index, device=device),
            torch.cat(weights).to(device),
        )
    found: tuple[Tensor, Tensor] = _constants[key]
    return found


def constant_words(kind: bytes, first: int, count: int) -> Tensor:
    """Words of a stream that is the same everywhere: int64, on the host."""
    stream = hashlib.shake_128(_WEIGHTS_SEED + b" " + kind).digest(8 * (first + count))
    return torch.frombuffer(bytearray(stream[8 * first :]), dtype=torch.int64)
