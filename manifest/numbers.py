"""Numbers of a training, beside its digests, for those who allow a tolerance.

``<process>.losses`` has eight bytes a step: the loss as a float64, or one special NaN where it was
not a single number. Of a long run the last few dozen may be missing where it was killed.

``<process>.samples`` has, in JSON, some elements of each parameter at the end of the process,
evenly spread, and the norm over all of it. Another course of training changes nearly every element,
and so these; what changes a few elements alone may change neither.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

SAMPLE_ELEMENTS: Final = 64
"""How many elements of a parameter are kept, at most."""

_SCHEMA = 1
_NUMBER = struct.Struct("<d")
_UNOBSERVED = struct.pack("<Q", 0x7FF8_0000_6E6F_6E65)  # a NaN that no computation gives


@dataclass(frozen=True, slots=True)
class Sample:
    """What is kept of one parameter."""

    norm: float
    size: int
    elements: bytes
    """Each a float64, little-endian."""

    def values(self) -> Sequence[float]:
        """The elements."""
        return [value for (value,) in _NUMBER.iter_unpack(self.elements)]


class LossWriter:
    """Puts losses into bytes, step by step."""

    def __init__(self) -> None:
        self._has_any = False

    def add(self, step: int, losses: Sequence[float | None]) -> bytes:
        """What the losses from this step on add to the file: nothing before the first number."""
        start = b""
        if not self._has_any:
            self._has_any = any(loss is not None for loss in losses)
            start = _UNOBSERVED * step if self._has_any else b""
        if not self._has_any:
            return b""
        return start + b"".join(_UNOBSERVED if n is None else _packed(n) for n in losses)


def _packed(number: float) -> bytes:
    # Of a NaN, whatever it carries, no more is kept than that it is one.
    return _NUMBER.pack(number if number == number else math.nan)  # noqa: PLR0124


def losses(content: bytes) -> Sequence[float]:
    """The losses in a file, with a NaN also where none was observed; see `is_unobserved`."""
    found = array("d")
    found.frombytes(content[: len(content) - len(content) % _NUMBER.size])
    return found


def is_unobserved(number: float) -> bool:
    """Whether a loss of a file is none."""
    return math.isnan(number) and _NUMBER.pack(number) == _UNOBSERVED


def encoded(samples: Mapping[str, Sample]) -> bytes:
    """Samples as they stand in a file."""
    tensors = {
        name: {
            "norm": sample.norm,
            "size": sample.size,
            "elements": base64.b64encode(sample.elements).decode("ascii"),
        }
        for name, sample in samples.items()
    }
    return json.dumps({"schema": _SCHEMA, "tensors": tensors}).encode()


def decoded(content: bytes) -> dict[str, Sample]:
    """The samples in a file; none of one that is torn or not of this form."""
    try:
        document = json.loads(content)
        if document["schema"] != _SCHEMA:
            return {}
        return {str(name): _sample(entry) for name, entry in document["tensors"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _sample(entry: Mapping[str, object]) -> Sample:
    elements = base64.b64decode(str(entry["elements"]), validate=True)
    norm, size = entry["norm"], entry["size"]
    if not isinstance(norm, float) or not isinstance(size, int) or len(elements) % _NUMBER.size:
        raise ValueError(entry)
    return Sample(norm, size, elements)
