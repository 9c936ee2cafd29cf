"""Which steps are digested, and at which every tensor is kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from manifest.schedule import digest_period, is_digested, keeps_leaves

MEBIBYTE = 2**20


def test_small_models_are_digested_at_every_step() -> None:
    period = digest_period(64 * MEBIBYTE)
    assert all(is_digested(step, period) for step in range(1000))


def test_large_models_are_digested_at_first_and_then_now_and_then() -> None:
    period = digest_period(1024 * MEBIBYTE)
    assert period == 32
    digested = [step for step in range(129) if is_digested(step, period)]
    assert digested == [*range(16), 32, 64, 96, 128]


@given(
    st.integers(0, 10**7),
    st.integers(0, 10**12),
)
def test_leaves_kept_at_an_octave_are_never_more_than_the_first(start: int, size: int) -> None:
    period = digest_period(size)
    octave = 1 << max(6, start.bit_length())
    steps = range(octave * period, 2 * octave * period, max(period, octave * period // 64))
    assert sum(is_digested(step, period) and keeps_leaves(step, period) for step in steps) <= 64


def test_leaves_are_kept_densely_at_first_and_32_times_an_octave_then() -> None:
    assert all(keeps_leaves(step, 1) for step in range(64))
    for octave in (64, 1024, 2**20):
        assert sum(keeps_leaves(step, 1) for step in range(octave, 2 * octave)) == 32
