"""Autocast regions that the program enters: on which device, and in which precision.

A backward pass runs outside of them, so nothing shows at a step that they were used.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from torch.amp.autocast_mode import autocast

from manifest.pytorch.hooks import keep_from_compiler

OnPrecision = Callable[[str, str], None]
"""Told the device and the precision."""

_on_precision: OnPrecision | None = None
_seen: set[tuple[str, object]] = set()
_is_installed = False


def watch_autocast(on_precision: OnPrecision) -> None:
    """Tell of each precision once, in the place of any earlier listener."""
    global _on_precision
    _install()
    _seen.clear()
    _on_precision = on_precision


def _install() -> None:
    global _is_installed
    if not _is_installed:
        _is_installed = True
        os.register_at_fork(after_in_child=_seen.clear)
        autocast.__enter__ = _watched(autocast.__enter__)  # type: ignore[method-assign]


def _watched(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(original)
    def __enter__(self: Any) -> Any:  # noqa: N807 -- the name it replaces
        entered = original(self)
        _notice(self)
        return entered

    keep_from_compiler(__enter__, with_callees=False)
    return __enter__


def _notice(region: Any) -> None:
    try:
        precision = (region.device, region.fast_dtype)
        if _on_precision is None or not region._enabled or precision in _seen:
            return
        _seen.add(precision)
        _on_precision(str(region.device), str(region.fast_dtype))
    except Exception:  # another PyTorch: then it is not known
        return
