"""Say what a complaint of PyTorch means, behind the program's own words on the terminal."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

Tell = Callable[[str], None]

_IN_EACH: Final = "determinis"
_MOST_TOLD: Final = 16

_told: dict[str, str] = {}


def operations_told() -> dict[str, str]:
    """The operations of which this process was warned so far, each with its place."""
    return dict(_told)


def tell_of_error(error: BaseException, tell: Tell) -> None:
    """Explain the error of which the program dies, if it is one of these; never raises."""
    # After Ctrl-C nothing may be imported any more.
    if isinstance(error, Exception):
        _tell(error, tell, frame=None)


def watch_warnings(tell: Tell) -> None:
    """Explain each operation once of which the program is warned, if the warning is shown."""
    import warnings  # which torch has imported

    module: Any = warnings
    # Behind `showwarning`, which programs replace, and of which they see that it was replaced.
    original = module._showwarnmsg_impl

    @functools.wraps(original)
    def _showwarnmsg_impl(message: Any) -> None:
        original(message)
        _tell(message, tell, frame=sys._getframe(1))

    module._showwarnmsg_impl = _showwarnmsg_impl


def _tell(complaint: Any, tell: Tell, *, frame: FrameType | None) -> None:
    try:
        text = str(getattr(complaint, "message", complaint))
        if _IN_EACH not in text or "torch" not in sys.modules:
            return
        from manifest.determinism.explaining import explain

        found = explain(complaint, frame=frame)
        if found is None:
            return
        if frame is not None:
            if found.name in _told or len(_told) >= _MOST_TOLD:
                return
            _told[found.name] = found.place.partition("  ")[0]
        for line in str(found).splitlines():
            tell(line)
    except Exception:
        pass
