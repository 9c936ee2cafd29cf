"""The one byte form of a manifest, and its digest.

Sorted keys, no white space, UTF-8, shortest float form, as in RFC 8785. Values that JSON cannot
carry exactly are written as an object with one key that begins with ``$``:

=====================  ===========================================================
``{"$float": "nan"}``  a float that is not finite (``nan``, ``inf``, ``-inf``)
``{"$int": "…"}``      an integer beyond ±2**53, which JSON readers would round
``{"$bytes": "…"}``    bytes, base64
``{"$repr": "…"}``     any other object, by its ``repr``
``{"$absent": true}``  looked for and not there (an unset variable)
``{"$redacted": "…"}`` there, not stored; the text is a salted digest
``{"$failed": "…"}``   could not be read; the text is the reason
=====================  ===========================================================

A key that is missing altogether was not captured.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, NewType, TypeAlias

Json: TypeAlias = Any
"""What `plain` returns: None, bool, int, float, str, list and dict of these."""

SCHEMA: Final = 1
"""The schema of run directories that this version writes, and the newest it reads."""

Digest = NewType("Digest", str)
"""``sha256:`` and 64 hexadecimal digits; made only here."""

ABSENT: Final = {"$absent": True}

_encoder = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)
_EXACT_INTEGER = 2**53
_LONG_BITS = 4096


def plain(value: object) -> Json:
    """Turn any value into one that JSON carries exactly; never raises."""
    if value is None or isinstance(value, (bool, str)):
        return _text(value) if isinstance(value, str) else value
    if isinstance(value, int):
        return int(value) if abs(value) <= _EXACT_INTEGER else {"$int": _digits(int(value))}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": str(float(value))}
    if isinstance(value, (bytes, bytearray)):
        return {"$bytes": base64.b64encode(value).decode("ascii")}
    if isinstance(value, Mapping):
        return {_text(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, AbstractSet):
        return sorted((plain(item) for item in value), key=repr)
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    return _represented(value)


def redacted(value: str, salt: bytes) -> Json:
    """Stand in for a secret, so that a diff can still say whether it changed."""
    return {"$redacted": hashlib.blake2b(value.encode(), key=salt, digest_size=8).hexdigest()}


def failed(reason: object) -> Json:
    """Stand in for a value that could not be read."""
    return {"$failed": _text(f"{type(reason).__name__}: {reason}"[:500])}


def attempted(probe: Callable[[], object]) -> Json:
    """The plain value that a probe gives, or a stand-in that says why there is none."""
    try:
        return plain(probe())
    except Exception as error:
        return failed(error)


def canonical_bytes(value: Json) -> bytes:
    """Encode a plain value in its one byte form."""
    return _encoder.encode(value).encode("utf-8")


def digest_bytes(data: bytes | bytearray | memoryview) -> Digest:
    """Name bytes by their SHA-256."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def digest_value(value: Json) -> Digest:
    """Name a plain value by the SHA-256 of its canonical bytes."""
    return digest_bytes(canonical_bytes(value))


def checked_digest(text: str) -> Digest:
    """Accept a digest that came from outside, or raise `ValueError`."""
    algorithm, _, digits = text.partition(":")
    if algorithm != "sha256" or len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise ValueError(f"expected 'sha256:' and 64 hexadecimal digits, found {text[:80]!r}")
    return Digest(text)


def _digits(value: int) -> str:
    # CPython refuses to print the decimal digits of very long integers.
    return str(value) if value.bit_length() < _LONG_BITS else hex(value)


def _text(value: str) -> str:
    # Lone surrogates (undecodable file names) have no UTF-8 form.
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def _represented(value: object) -> Json:
    try:
        return {"$repr": _text(repr(value)[:1000])}
    except Exception as error:  # a broken __repr__ is the program's affair, not ours
        return failed(error)
