"""A seed as it is kept: for people to read, and exactly, to be given again."""

from __future__ import annotations

import base64
from typing import Any

from manifest.canonical import Json, plain

_MOST_ELEMENTS = 64
_LONGEST_TEXT = 200
_MOST_BITS = 4096


def shown(seed: object) -> Json:
    """A seed as people read it, cut where it is long."""
    if isinstance(seed, int) and seed.bit_length() > _MOST_BITS:
        return f"an integer of {seed.bit_length()} bits"
    if seed is None or isinstance(seed, (bool, int, float)):
        return plain(seed)
    if isinstance(seed, (str, bytes, bytearray)):
        return plain(seed[:_LONGEST_TEXT])
    if isinstance(seed, (list, tuple)):
        # As a text: a list stands for several seeds.
        return str([shown(element) for element in seed[:_MOST_ELEMENTS]])[:_LONGEST_TEXT]
    if not _is_of_numpy(seed):  # what computes its text may wait for a device
        return f"{type(seed).__module__}.{type(seed).__qualname__}"
    if hasattr(seed, "tolist") and getattr(seed, "size", 1) <= _MOST_ELEMENTS:
        return shown(seed.tolist())
    return " ".join(repr(seed).split())[:_LONGEST_TEXT]


def in_words(kept: Json) -> str:
    """What `shown` gave, within a sentence."""
    return str(next(iter(kept.values()), "")) if isinstance(kept, dict) else str(kept)


def exact(seed: object) -> Json:
    """A seed as it can be given again; None if it is of no such type, or too long."""
    if isinstance(seed, (bool, int, float)):
        is_bounded = not isinstance(seed, int) or seed.bit_length() <= _MOST_BITS
        return plain(seed) if is_bounded else None
    if isinstance(seed, str):
        return str(seed) if len(seed) <= _LONGEST_TEXT and plain(seed) == seed else None
    if isinstance(seed, (bytes, bytearray)):
        return plain(bytes(seed)) if len(seed) <= _LONGEST_TEXT else None
    if isinstance(seed, (list, tuple)):
        is_bounded = len(seed) <= _MOST_ELEMENTS
        elements = [exact(element) for element in seed if _is_integer(element)]
        return elements if is_bounded and len(elements) == len(seed) else None
    if _is_of_numpy(seed) and hasattr(seed, "tolist"):
        return exact(seed.tolist()) if getattr(seed, "size", 1) <= _MOST_ELEMENTS else None
    return None


def decoded(kept: Json) -> Any:
    """The seed that `exact` gave; None for everything else that a manifest may hold."""
    if isinstance(kept, list):
        elements = [decoded(element) for element in kept[:_MOST_ELEMENTS]]
        return elements if all(type(element) is int for element in elements) else None
    if not isinstance(kept, dict):
        return kept
    match kept:
        case {"$int": str(digits)} if len(digits) <= _MOST_BITS:
            return int(digits, 0)
        case {"$float": str(text)}:
            return float(text)
        case {"$bytes": str(text)}:
            return base64.b64decode(text, validate=True)
    return None


def _is_integer(value: object) -> bool:
    if _is_of_numpy(value):
        return getattr(value, "shape", None) == () and isinstance(value.tolist(), int)  # type: ignore[attr-defined]
    return isinstance(value, int) and value.bit_length() <= _MOST_BITS


def _is_of_numpy(value: object) -> bool:
    return type(value).__module__.partition(".")[0] == "numpy"
