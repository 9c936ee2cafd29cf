"""How much one caller may ask for: a bucket of tokens for each, in the memory of this process."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

BURST_SECONDS: Final = 4
"""How long a caller that was idle may ask without a pause, in seconds' worth of requests."""

_MOST_CALLERS: Final = 10_000


class Rates:
    """Buckets that fill steadily, and of which every request takes one."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._most = max(1.0, per_second * BURST_SECONDS)
        self._clock = clock
        self._lock = threading.Lock()
        # The bucket of whoever asked longest ago is forgotten first: it is the fullest.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_seconds(self, caller: str) -> float:
        """Take one request of a caller; gives how long it has to wait, 0 if not at all."""
        if not self._per_second:
            return 0.0
        now = self._clock()
        with self._lock:
            left, at = self._buckets.pop(caller, (self._most, now))
            left = min(self._most, left + (now - at) * self._per_second)
            is_there = left >= 1
            self._buckets[caller] = (left - is_there, now)
            if len(self._buckets) > _MOST_CALLERS:
                self._buckets.popitem(last=False)
        return 0.0 if is_there else (1 - left) / self._per_second
