"""Some elements of a parameter, as numbers, for those who allow a tolerance."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from manifest.numbers import SAMPLE_ELEMENTS, Sample


def sample(tensor: Tensor) -> Sample | None:
    """Take evenly spread elements, and the norm of all; waits if it is on an accelerator.

    Returns:
        None for what has no plain elements: sparse, quantized, nested, without data.
    """
    with torch.no_grad():
        if hasattr(tensor, "to_local"):
            tensor = tensor.to_local()
        is_plain = tensor.layout is torch.strided and not (tensor.is_quantized or tensor.is_nested)
        if not is_plain or tensor.is_meta or not tensor.numel():
            return None
        if not tensor.untyped_storage().nbytes():
            return None  # sharded training frees what it can gather again
        if tensor.is_complex():
            tensor = torch.view_as_real(tensor.resolve_conj())
        flat = tensor.detach().reshape(-1)
        elements = flat[:: _stride(flat.numel())][:SAMPLE_ELEMENTS]
        values = elements.cpu().to(torch.float64).contiguous()
        return Sample(
            norm=_norm(flat),
            size=flat.numel(),
            elements=ctypes.string_at(values.data_ptr(), values.nbytes),
        )


def _stride(count: int) -> int:
    # Odd: rows have an even length mostly, and an even stride would meet the same columns.
    stride = count // SAMPLE_ELEMENTS
    return max(1, stride - (stride + 1) % 2)


def _norm(flat: Tensor) -> float:
    if flat.dtype not in (torch.float32, torch.float64):
        flat = flat.to(torch.float32 if flat.is_floating_point() else torch.float64)
    return float(torch.linalg.vector_norm(flat))
