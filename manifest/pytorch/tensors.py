"""Fingerprints of tensors: equal bits give equal fingerprints.

In host memory a fingerprint is XXH3-128 of the elements in C order, seeded with XXH3-64 of dtype
and shape. The bytes are read where they lie; only a tensor that is not contiguous is copied. On an
accelerator it is computed there (see `sums`) and copied to the host while the program goes on.

========================  ====================================================================
dense, contiguous         the elements, with no copy
strided, conj, neg        the elements in logical order (channels last equals contiguous)
quantized                 integers, scales, zero points
sparse                    indices and values, coalesced
nested                    each component
mkldnn                    its dense twin
DTensor                   the local part
other subclasses          the inner tensors, else the elements
meta, fake, freed         dtype and shape alone
========================  ====================================================================

``-0.0`` and ``0.0`` differ, and so do two NaNs with different payloads.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from xxhash import xxh3_64_intdigest, xxh3_128_digest

from manifest.pytorch.kernels import SumsKernel, has_bytes_at, is_read_in_place
from manifest.pytorch.sums import device_sums, kernel_of
from manifest.pytorch.transfers import Reading, Words
from manifest.streams import UNOBSERVED

_PLAIN: Final = frozenset((Tensor, torch.nn.Parameter))
_STRIDED: Final = torch.strided
_COMPRESSED: Final = {
    torch.sparse_csr: ("crow_indices", "col_indices"),
    torch.sparse_bsr: ("crow_indices", "col_indices"),
    torch.sparse_csc: ("ccol_indices", "row_indices"),
    torch.sparse_bsc: ("ccol_indices", "row_indices"),
}

_MOST_SHAPES = 4096

_FLOAT = struct.Struct("<f")
_FLOAT_SEED = xxh3_64_intdigest(b"torch.float32[]")  # as `_shape` gives it


def fingerprint(tensor: Tensor) -> bytes:
    """Digest dtype, shape and the exact bits of a tensor; waits if it is on an accelerator.

    Returns:
        16 bytes.

    Example:
        >>> fingerprint(torch.zeros(2)) == fingerprint(-torch.zeros(2))
        False
    """
    if type(tensor) not in _PLAIN or not tensor.is_cpu or tensor.is_nested:
        return _other(tensor)
    if tensor.layout is not _STRIDED or not tensor.is_contiguous():
        return _other(tensor)
    if tensor.is_conj() or tensor.is_neg() or tensor.is_quantized:
        return _other(tensor)
    known = _shapes.get((tensor.dtype, tensor.shape))
    seed, size, view = known or _shape(tensor)
    if size == 0:
        return xxh3_128_digest(b"", seed)
    reach = size + tensor.storage_offset() * tensor.itemsize
    address = tensor.data_ptr()
    # A storage that was freed (sharded training does it) must not be read.
    if not address or tensor.untyped_storage().nbytes() < reach:
        return _described(tensor)
    return xxh3_128_digest(view(address), seed)


def number_and_fingerprint(tensor: Tensor) -> tuple[float, bytes] | None:
    """What a lone float32 in host memory is, and its `fingerprint`, by the shortest way there is.

    None for any other tensor, and for a NaN, of whose payload a number tells nothing.
    """
    if tensor.dtype is not torch.float32 or tensor.ndim or not tensor.is_cpu:
        return None
    number = tensor.item()
    if number != number:  # noqa: PLR0124
        return None
    return number, xxh3_128_digest(_FLOAT.pack(number), _FLOAT_SEED)


def fingerprint_many(tensors: Iterable[Tensor]) -> list[bytes]:
    """Digest each tensor; waits if some are on an accelerator."""
    started = start_reading(tensors)
    return started.wait() if isinstance(started, Reading) else started


def start_reading(tensors: Iterable[Tensor | None]) -> list[bytes] | Reading:
    """Digest each tensor without waiting; None, and what an accelerator hides, is `UNOBSERVED`."""
    leaves: list[bytes | None] = []
    away: list[Tensor] = []
    for tensor in tensors:
        if tensor is None:
            leaves.append(UNOBSERVED)
        elif is_on_host(tensor):
            leaves.append(fingerprint(tensor))
        elif (local := _lanes_source(tensor)) is None:
            leaves.append(UNOBSERVED)
        else:
            leaves.append(None)
            away.append(local)
    if not away:
        return [leaf for leaf in leaves if leaf is not None]
    return reading_of(leaves, away)


class Watchpoints:
    """Fingerprints of the same tensors again and again: where each lay last is remembered."""

    def __init__(self) -> None:
        self._seen: list[_Seen] = []
        self._away: _Away | None = None

    def start_reading(self, tensors: Sequence[Tensor | None]) -> list[bytes] | Reading:
        """Digest each tensor; see `start_reading`, to which this is equal."""
        if self._away is not None and (reading := self._away.start_reading(tensors)) is not None:
            return reading
        seen, place = self._seen, 0
        if len(seen) != len(tensors):
            seen = self._seen = [_NOWHERE] * len(tensors)
        found = []
        try:
            for tensor in tensors:
                form, shape, address, content, seed = seen[place]
                # Few questions, as each is a long way through memory that the program uses.
                if tensor is None:
                    found.append(UNOBSERVED)
                elif (
                    type(tensor) in _PLAIN
                    and tensor.shape == shape
                    and tensor.dtype is form
                    and tensor.is_contiguous()
                    and (
                        tensor.data_ptr() == address
                        or (content := _moved(tensor, content)) is not None
                    )
                ):
                    found.append(xxh3_128_digest(content, seed))
                elif is_on_host(tensor):
                    found.append(fingerprint(tensor))
                    seen[place] = _seen(tensor)
                else:
                    return self._elsewhere(tensors)
                place += 1
        except RuntimeError:  # what is sparse lies at no address
            return start_reading(tensors)
        return found

    def _elsewhere(self, tensors: Sequence[Tensor | None]) -> list[bytes] | Reading:
        reading = start_reading(tensors)
        self._away = _Away.of(tensors)
        return reading


@dataclass(slots=True)
class _Away:
    """Tensors of one accelerator, of which only the addresses have to be asked at each step."""

    kernel: SumsKernel
    index: int
    forms: list[tuple[torch.dtype, torch.Size] | None]
    sizes: tuple[int, ...]
    leaves: list[bytes | None]
    places: list[tuple[int, int]]

    @classmethod
    def of(cls, tensors: Sequence[Tensor | None]) -> _Away | None:
        """What is to be remembered of tensors; None where they have to be looked at anew."""
        there = [(place, tensor) for place, tensor in enumerate(tensors) if tensor is not None]
        devices = {tensor.device for _, tensor in there}
        kernel = kernel_of(devices.pop()) if len(devices) == 1 else None
        if kernel is None:
            return None
        if not all(is_read_in_place(tensor) and not tensor.is_complex() for _, tensor in there):
            return None
        return cls(
            kernel,
            there[0][1].get_device(),
            [None if tensor is None else (tensor.dtype, tensor.shape) for tensor in tensors],
            tuple([tensor.nbytes for _, tensor in there]),
            [UNOBSERVED if tensor is None else None for tensor in tensors],
            [(place, _seed(tensor)) for place, tensor in there],
        )

    def start_reading(self, tensors: Sequence[Tensor | None]) -> Reading | None:
        """Digest each tensor; None where one is not as it was."""
        addresses = self._addresses(tensors)
        if addresses is None or torch.cuda.current_device() != self.index:
            return None
        with torch.no_grad():
            words = self.kernel.sums_at(addresses, self.sizes)
        return Reading(self.leaves, [(self.places, words)])

    def _addresses(self, tensors: Sequence[Tensor | None]) -> list[int] | None:
        if len(tensors) != len(self.forms):
            return None
        addresses = []
        for tensor, form in zip(tensors, self.forms, strict=True):
            if tensor is None or form is None:
                if tensor is None and form is None:
                    continue
                return None
            if type(tensor) not in _PLAIN or tensor.dtype is not form[0]:
                return None
            if tensor.shape != form[1] or tensor.get_device() != self.index:
                return None
            address = tensor.data_ptr()
            if not (tensor.is_contiguous() and has_bytes_at(tensor, address)):
                return None
            addresses.append(address)
        return addresses


def _moved(tensor: Tensor, content: Any) -> Any:
    """Bytes of the same form, elsewhere; None where they may not be read so simply."""
    address = tensor.data_ptr()
    # With an offset, a storage that was freed could not be told by its address.
    if not address or not tensor.is_cpu or tensor.storage_offset():
        return None
    return type(content).from_address(address)


def is_on_host(tensor: Tensor) -> bool:
    """Whether the elements can be read without asking an accelerator."""
    return tensor.is_cpu or tensor.is_meta


def reading_of(leaves: Sequence[bytes | None], tensors: Sequence[Tensor]) -> Reading:
    """Start to digest what lies on accelerators.

    Args:
        leaves: The fingerprints already known, with None where one is on its way.
        tensors: A tensor for each None, in order.
    """
    holes = [place for place, leaf in enumerate(leaves) if leaf is None]
    by_device: dict[torch.device, list[tuple[int, Tensor]]] = {}
    for place, tensor in zip(holes, tensors, strict=True):
        by_device.setdefault(tensor.device, []).append((place, tensor))
    return Reading(leaves, [_summed(group) for group in by_device.values()])


def _summed(group: Sequence[tuple[int, Tensor]]) -> tuple[list[tuple[int, int]], Words]:
    seeds = [(place, _seed(tensor)) for place, tensor in group]
    return seeds, device_sums([tensor for _, tensor in group])


def _seed(tensor: Tensor) -> int:
    known = _shapes.get((tensor.dtype, tensor.shape))
    return (known or _shape(tensor))[0]


def _other(tensor: Tensor) -> bytes:
    with torch.no_grad():
        if tensor.is_meta or is_fake(tensor):
            return _described(tensor)
        if tensor.is_nested:
            return _parts("nested", tensor, *tensor.unbind())
        if type(tensor) not in _PLAIN:
            return _subclass(tensor)
        if tensor.layout is not _STRIDED:
            return _sparse(tensor)
        return _strided(tensor)


def _subclass(tensor: Tensor) -> bytes:
    if hasattr(tensor, "to_local"):
        return fingerprint(tensor.to_local())
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return _parts(type(tensor).__name__, tensor, *(getattr(tensor, name) for name in names))
    return fingerprint(tensor.as_subclass(Tensor))


def _sparse(tensor: Tensor) -> bytes:
    if tensor.layout is torch.sparse_coo:
        ordered = tensor.coalesce()
        return _parts("sparse", tensor, ordered.indices(), ordered.values())
    if tensor.layout in _COMPRESSED:
        indices = [getattr(tensor, name)() for name in _COMPRESSED[tensor.layout]]
        return _parts(str(tensor.layout), tensor, *indices, tensor.values())
    return fingerprint(tensor.to_dense())


def _strided(tensor: Tensor) -> bytes:
    if not tensor.is_cpu:
        return fingerprint_many([tensor])[0]
    if tensor.is_quantized:
        return _quantized(tensor)
    return fingerprint(tensor.resolve_conj().resolve_neg().contiguous())


def _quantized(tensor: Tensor) -> bytes:
    scheme = tensor.qscheme()
    if scheme in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        scale = torch.tensor(tensor.q_scale(), dtype=torch.float64)
        zero = torch.tensor(tensor.q_zero_point())
    else:
        scale, zero = tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()
    return _parts(str(scheme), tensor, tensor.int_repr(), scale, zero)


def _described(tensor: Tensor) -> bytes:
    return _parts("no data", tensor)


def _parts(kind: str, tensor: Tensor, *parts: Tensor) -> bytes:
    # A nested tensor has components, and no shape of its own.
    shape = len(parts) if tensor.is_nested else list(tensor.shape)
    seed = xxh3_64_intdigest(f"{kind} {tensor.dtype}{shape}".encode())
    return xxh3_128_digest(b"".join([fingerprint(part) for part in parts]), seed)


def is_fake(tensor: Tensor) -> bool:
    """Whether a tensor only stands for one, while a graph is made."""
    module = sys.modules.get("torch._subclasses.fake_tensor")
    return module is not None and isinstance(tensor, module.FakeTensor)


_Shape = tuple[int, int, Callable[[int], Any]]
_shapes: dict[tuple[torch.dtype, torch.Size], _Shape] = {}


_Seen = tuple[torch.dtype | None, torch.Size | None, int, Any, int]
_NOWHERE: _Seen = (None, None, 0, b"", 0)


def _seen(tensor: Tensor) -> _Seen:
    known = _shapes.get((tensor.dtype, tensor.shape)) if _is_in_reach(tensor) else None
    if known is None:
        return _NOWHERE
    seed, _, view = known
    address = tensor.data_ptr()
    return tensor.dtype, tensor.shape, address, view(address), seed


def _is_in_reach(tensor: Tensor) -> bool:
    if type(tensor) not in _PLAIN or not tensor.is_cpu or tensor.is_nested:
        return False
    if tensor.layout is not _STRIDED or tensor.is_complex() or tensor.is_neg():
        return False
    if not tensor.is_contiguous() or not tensor.numel():
        return False
    reach = tensor.nbytes + tensor.storage_offset() * tensor.itemsize
    return tensor.untyped_storage().nbytes() >= reach


def _shape(tensor: Tensor) -> _Shape:
    seed = xxh3_64_intdigest(f"{tensor.dtype}{list(tensor.shape)}".encode())
    view = (ctypes.c_char * tensor.nbytes).from_address
    if len(_shapes) >= _MOST_SHAPES:
        _shapes.clear()
    found = _shapes[tensor.dtype, tensor.shape] = (seed, tensor.nbytes, view)
    return found


def _lanes_source(tensor: Tensor) -> Tensor | None:
    if hasattr(tensor, "to_local"):
        tensor = tensor.to_local()
    # A sparse tensor cannot be put in order without waiting for its size.
    if tensor.is_nested or tensor.is_quantized or tensor.layout is not _STRIDED:
        return None
    if tensor.numel() and not tensor.untyped_storage().nbytes():  # freed: not to be read
        return None
    return tensor
