"""Which machine this is, and which user: names that say "the same" or "another", and no more."""

from __future__ import annotations

import hashlib
import os
from typing import Final

from manifest.canonical import Json

_FILES: Final = ("/etc/machine-id", "/var/lib/dbus/machine-id")
_PURPOSE: Final = b"manifest: the machine of a run"


def identify_machine() -> dict[str, Json]:
    """What the origin of a run carries, so that a replay knows whose code it would run."""
    return {"machine": _machine(), "uid": os.getuid()}


def _machine() -> str | None:
    # The id itself is confidential; one made from it for a purpose of its own may be told.
    # Source: machine-id(5).
    for path in _FILES:
        try:
            with open(path, "rb") as file:
                text = file.read(64).strip()
        except OSError:
            continue
        if text:
            return hashlib.blake2b(text, key=_PURPOSE, digest_size=16).hexdigest()
    return None
