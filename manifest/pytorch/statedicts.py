"""State dicts of loaders as plain data: numbers, texts, containers and tensors alone."""

from __future__ import annotations

import base64
import ctypes
import math
from typing import Any, Final

import torch
from torch import Tensor
from xxhash import xxh3_128_hexdigest

from manifest.canonical import Json, canonical_bytes, plain
from manifest.errors import StateNotRestorable

_DEEPEST = 16
_MOST_BYTES = 4 * 2**20
_DTYPES: Final = {
    str(dtype): dtype
    for dtype in (
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float32,
        torch.float64,
    )
}


def encoded_state_dict(state: object) -> Json:
    """A state dict as it stands in a snapshot.

    Raises:
        StateNotRestorable: Something in it is no plain data, or it is too large.
    """
    encoded = _encoded(state, _DEEPEST)
    size = len(canonical_bytes(encoded))
    if size > _MOST_BYTES:
        raise StateNotRestorable(f"its state has {size} bytes, more than {_MOST_BYTES} are kept")
    return encoded


def decoded_state_dict(encoded: Json) -> Any:
    """The state dict that `encoded_state_dict` was given.

    Raises:
        StateNotRestorable: It does not have the form of one.
    """
    try:
        return _decoded(encoded, _DEEPEST)
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise StateNotRestorable(f"a recorded state dict cannot be read: {error!r}") from error


def state_dict_digest(state: object) -> str:
    """A digest of a state dict.

    Raises:
        StateNotRestorable: Something in it is no plain data, or it is too large.
    """
    return f"xxh3:{xxh3_128_hexdigest(canonical_bytes(encoded_state_dict(state)))}"


def _encoded(value: Any, depth: int) -> Json:
    if depth == 0:
        raise StateNotRestorable("its state is nested too deeply")
    if value is None or type(value) in (bool, int, str, bytes):
        return plain(value)
    if type(value) is float:
        return plain(value)
    if type(value) is list:
        return [_encoded(item, depth - 1) for item in value]
    if type(value) is tuple:
        return {"$tuple": [_encoded(item, depth - 1) for item in value]}
    if type(value) is dict and all(type(key) is str and key[:1] != "$" for key in value):
        return {key: _encoded(item, depth - 1) for key, item in value.items()}
    if type(value) is Tensor and str(value.dtype) in _DTYPES and value.layout is torch.strided:
        return _encoded_tensor(value)
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise StateNotRestorable(f"its state holds a {kind[:200]}, which is no plain data")


def _encoded_tensor(tensor: Tensor) -> Json:
    if tensor.device.type != "cpu":
        raise StateNotRestorable(f"its state holds a tensor on {tensor.device}")
    whole = tensor.detach().contiguous()
    data = ctypes.string_at(whole.data_ptr(), whole.nbytes)
    shape = list(tensor.shape)
    return {"$tensor": {"dtype": str(tensor.dtype), "shape": shape, **plain(data)}}


def _decoded(encoded: Any, depth: int) -> Any:
    if depth == 0:
        raise ValueError("it is nested too deeply")
    if encoded is None or type(encoded) in (bool, int, float, str):
        return encoded
    if type(encoded) is list:
        return [_decoded(item, depth - 1) for item in encoded]
    if type(encoded) is not dict:
        raise TypeError(f"found a {type(encoded).__name__}")
    if next(iter(encoded), "")[:1] != "$":
        return {key: _decoded(item, depth - 1) for key, item in encoded.items()}
    ((tag, value),) = encoded.items()
    return _tagged(tag, value, depth)


def _tagged(tag: str, value: Any, depth: int) -> Any:
    match tag:
        case "$tuple":
            return tuple(_decoded(item, depth - 1) for item in list(value))
        case "$bytes":
            return base64.b64decode(value, validate=True)
        case "$int":
            return int(value, 0)
        case "$float":
            return _not_finite(value)
        case "$tensor":
            return _decoded_tensor(value)
    raise ValueError(f"found {tag[:20]!r}")


def _not_finite(text: str) -> float:
    value = float(text)
    if math.isfinite(value):
        raise ValueError(f"found {text[:20]!r}")
    return value


def _decoded_tensor(value: Any) -> Tensor:
    dtype, shape = _DTYPES[value["dtype"]], [int(size) for size in value["shape"]]
    data = base64.b64decode(value["$bytes"], validate=True)
    if math.prod(shape) * dtype.itemsize != len(data) or min(shape, default=0) < 0:
        raise ValueError(f"a tensor of {len(data)} bytes cannot have the shape {shape}")
    if not data:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape).clone()
