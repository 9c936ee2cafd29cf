"""Moments and spans of time, as people say them."""

from __future__ import annotations

from datetime import UTC, datetime


def age(moment: str, now: datetime | None = None) -> str:
    """How long ago a moment was, in one unit: ``12 s``, ``3 min``, ``5 h``, ``2 d``."""
    seconds = ((now or datetime.now(UTC)) - _parsed(moment)).total_seconds()
    if seconds < 0:
        return "now"
    for limit, unit_seconds, unit in ((90, 1, "s"), (5400, 60, "min"), (129_600, 3600, "h")):
        if seconds < limit:
            return f"{round(seconds / unit_seconds)} {unit}"
    return f"{round(seconds / 86_400)} d"


def duration(started_at: str, ended_at: str) -> str:
    """How long something took: ``0.8 s``, ``12 s``, ``3 min 5 s``, ``2 h 4 min``."""
    seconds = seconds_between(started_at, ended_at) or 0.0
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def seconds_between(started_at: str, ended_at: str | None) -> float | None:
    """How many seconds something took; None where it has not ended."""
    if ended_at is None:
        return None
    return max(0.0, (_parsed(ended_at) - _parsed(started_at)).total_seconds())


def local_time(moment: str) -> str:
    """A moment on the clock of this machine, to the second."""
    return _parsed(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _parsed(moment: str) -> datetime:
    try:
        parsed = datetime.fromisoformat(moment)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
