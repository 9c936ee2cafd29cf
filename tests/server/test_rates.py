"""A caller may ask steadily, and in bursts, but not for ever more."""

from __future__ import annotations

from manifest_server import rates
from manifest_server.rates import BURST_SECONDS, Rates


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_passes_and_then_the_steady_rate() -> None:
    clock = Clock()
    limit = Rates(8, clock)

    assert [limit.wait_seconds("ada") for _ in range(8 * BURST_SECONDS)] == [0] * 32
    assert limit.wait_seconds("ada") == 0.125
    assert limit.wait_seconds("bob") == 0
    clock.now += 0.125
    assert limit.wait_seconds("ada") == 0
    assert limit.wait_seconds("ada") > 0
    clock.now += 1000
    assert [limit.wait_seconds("ada") for _ in range(33)].count(0) == 32


def test_no_limit_is_none() -> None:
    limit = Rates(0, Clock())
    assert {limit.wait_seconds("ada") for _ in range(1000)} == {0}


def test_less_than_one_a_second_is_a_limit_too() -> None:
    limit = Rates(0.1, Clock())
    assert limit.wait_seconds("ada") == 0
    assert limit.wait_seconds("ada") == 10


def test_strangers_do_not_fill_the_memory() -> None:
    limit = Rates(1, Clock())
    for number in range(rates._MOST_CALLERS + 10):
        limit.wait_seconds(str(number))
    assert len(limit._buckets) == rates._MOST_CALLERS
