"""Run ids: UUIDv7, made here, sortable by time.

The random part comes from the operating system, never from a generator that the program can see
(a tracker that names runs with ``random.choice`` gives equal names under equal seeds).
"""

from __future__ import annotations

import os
import re
import time

_urandom = os.urandom  # bound now: a run may pin `os.urandom` for the program, never for ids

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def new_run_id() -> str:
    """Make a new run id: 60 bits of time, to a quarter of a microsecond, then 62 random bits.

    Ids that a process makes one after another sort in that order, even within a millisecond.

    Source:
        RFC 9562, section 5.7, and section 6.2, method 3.
    """
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    fraction = (nanoseconds << 12) // 1_000_000
    random = int.from_bytes(_urandom(8), "big") >> 2
    value = milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0x2 << 62 | random
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_run_id(text: str) -> bool:
    """Whether this is the text of a run id."""
    return _ID.fullmatch(text) is not None


def short_id(run_id: str) -> str:
    """The start of an id that people type: its time, to the millisecond."""
    return run_id[:13]
