"""Hooks for a program without a line of its own, which its framework asks for by entry points.

They are there only where the program is recorded; one that is not imports nothing for them.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from manifest.inheriting import CALLBACKS


def lightning_callbacks() -> list[Any]:
    """The callbacks that Lightning adds to each trainer; none where the user wants none."""
    if os.environ.get(CALLBACKS) == "off" or not _is_recorded():
        return []
    from manifest.integrations.lightning import AutomaticCallback

    return [AutomaticCallback(strict=False)]


def _is_recorded() -> bool:
    recorder = sys.modules.get("manifest.recorder")
    return recorder is not None and recorder.active() is not None
