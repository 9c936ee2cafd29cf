"""Entropy of the operating system: noticed always, pinned only on request.

`os.urandom`, `secrets`, `uuid.uuid4` and `random.SystemRandom` are also used for keys and tokens,
so they stay as they are unless the user asks (``--pin-entropy``). Their use is counted by place, so
that a replay that differs can name them.
"""

from __future__ import annotations

import functools
import os
import sys
from types import FrameType, ModuleType

from manifest.entropy import Entropy

KIND = "os"
_MOST_PLACES = 64
# Between the program and the source, or drawing for themselves and never for results.
_PASSED_THROUGH = ("random", "secrets", "uuid")
_OF_NO_CONSEQUENCE = (
    "multiprocessing.",
    "tempfile",
    "asyncio.",
    "manifest.",
    "urllib",
    "email.",
    "torch.distributed.",
)


class Uses:
    """Where the program drew entropy from the operating system, and how often."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}
        self.is_pinned = False

    def note(self, frame: FrameType | None) -> None:
        """Count one draw for the first caller that is not a mere intermediary."""
        while frame is not None and frame.f_globals.get("__name__") in _PASSED_THROUGH:
            frame = frame.f_back
        if frame is None:
            return
        module = _module(frame)
        if module.startswith(_OF_NO_CONSEQUENCE) or _is_in_import_of_library(frame):
            return
        place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        if place in self.places or len(self.places) < _MOST_PLACES:
            self.places[place] = self.places.get(place, 0) + 1


def _module(frame: FrameType) -> str:
    # A module that is run (`python -m`) is called "__main__", but its spec still knows it.
    spec = frame.f_globals.get("__spec__")
    return str(getattr(spec, "name", None) or frame.f_globals.get("__name__", ""))


def _is_in_import_of_library(frame: FrameType) -> bool:
    # Libraries make unique names while they are imported; that is none of the program's doing.
    if not any(part in frame.f_code.co_filename for part in ("site-packages", "dist-packages")):
        return False
    above: FrameType | None = frame
    while above is not None:
        if above.f_globals.get("__name__") == "importlib._bootstrap":
            return True
        above = above.f_back
    return False


def pin(entropy: Entropy, uses: Uses) -> None:
    """Watch `os.urandom`; while `uses.is_pinned`, let it draw from `entropy`."""
    original = os.urandom

    @functools.wraps(original)
    def urandom(size: int, /) -> bytes:
        try:
            uses.note(sys._getframe(1))
        except Exception:  # counting must never cost the program its entropy
            pass
        if uses.is_pinned and size >= 0:
            return entropy.draw(KIND, size)
        return original(size)

    os.urandom = urandom


def rebind(random: ModuleType) -> None:
    """Let `random.SystemRandom`, which bound the function at import, use the watched one."""
    random._urandom = os.urandom  # type: ignore[attr-defined]
