"""Which steps are digested in full, and at which the fingerprint of every tensor is kept.

It depends on the step and the size of the parameters alone, so that two runs of one program keep
the same ones; and on the window in which a replay is told to keep everything.
"""

from __future__ import annotations

_FIRST_STEPS = 64
_BITS_KEPT = 6  # of the number of a step; the others are zero: 32 steps an octave
_LARGE_BYTES = 64 * 2**20
_BYTES_PER_STEP = 32 * 2**20
_FIRST_STEPS_OF_LARGE = 16


def digest_period(parameter_bytes: int) -> int:
    """Every how many steps parameters of this size are digested in full."""
    if parameter_bytes <= _LARGE_BYTES:
        return 1
    return -(-parameter_bytes // _BYTES_PER_STEP)


def is_digested(step: int, period: int) -> bool:
    """Whether gradients and parameters are digested at this step."""
    return step % period == 0 or step < _FIRST_STEPS_OF_LARGE


def keeps_leaves(step: int, period: int) -> bool:
    """Whether the fingerprint of every tensor is kept at this step, which is digested."""
    if period > 1:
        if step < _FIRST_STEPS_OF_LARGE:
            return True
        step //= period
    # Beyond the first, the steps of an octave that are multiples of a 32nd of it.
    return step < _FIRST_STEPS or step & ((1 << step.bit_length() - _BITS_KEPT) - 1) == 0
