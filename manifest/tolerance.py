"""Whether two runs agree within a tolerance, where their bits do not.

What is compared is numbers, not digests: the loss of every step and, if both runs took as many
steps, some elements and the norm of every parameter; see `numbers`. Two numbers agree as
`math.isclose` says. The elements of one parameter are compared together, as a single one may be
close to zero: the root of their mean square difference, beside the root of their mean square.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from manifest.models import Deviation, Tolerance
from manifest.numbers import Sample, is_unobserved
from manifest.trail import Trail


@dataclass(frozen=True, slots=True)
class _Apart:
    """How far two numbers are apart, or the elements of a parameter."""

    process: str
    name: str
    absolute: float
    relative: float
    step: int | None = None
    before: float | None = None
    after: float | None = None

    def is_within(self, rtol: float, atol: float) -> bool:
        return self.absolute <= atol or self.relative <= rtol


def compare_numbers(
    before: Mapping[str, Trail], after: Mapping[str, Trail], *, rtol: float, atol: float
) -> Tolerance:
    """Compare the numbers of all processes that both runs have.

    Args:
        before: The trails of one run, by process.
        after: Those of the other.
        rtol: What may differ, relative to the larger of two numbers.
        atol: What may differ at any rate.
    """
    steps = tensors = 0
    largest: _Apart | None = None
    exceeded: _Apart | None = None
    for process in sorted(before.keys() & after.keys()):
        losses = list(_losses(process, before[process], after[process]))
        samples = list(_samples(process, before[process], after[process]))
        steps, tensors = max(steps, len(losses)), max(tensors, len(samples))
        farthest = max((largest, *losses, *samples), key=lambda each: each.relative if each else -1)
        largest = farthest or largest
        beyond = [each for each in (*losses, *samples) if not each.is_within(rtol, atol)]
        exceeded = min((exceeded, *beyond), key=_moment, default=None)
    return Tolerance(
        rtol=rtol,
        atol=atol,
        steps=steps,
        tensors=tensors,
        largest=_told(largest),
        exceeded=_told(exceeded),
    )


def explanation(found: Tolerance) -> str:
    """Say in one sentence what came of it.

    Example:
        >>> explanation(Tolerance(rtol=0.1, atol=0, steps=0, tensors=0))
        'no numbers were recorded in both runs, so no tolerance can be applied'
    """
    if not found.steps and not found.tensors:
        return "no numbers were recorded in both runs, so no tolerance can be applied"
    compared = []
    if found.steps:
        compared.append(f"the loss of {found.steps} step" + "s" * (found.steps != 1))
    if found.tensors:
        compared.append(f"samples of {found.tensors} parameter" + "s" * (found.tensors != 1))
    limits = f"rtol {found.rtol:g}, atol {found.atol:g}"
    subject = " and ".join(compared)
    if found.exceeded is not None:
        return f"beyond {limits}: {_said(found.exceeded)}"
    if found.largest is None or not found.largest.absolute:
        return f"{subject} are equal"
    return f"{subject} agree within {limits}; farthest apart: {_said(found.largest)}"


def _said(deviation: Deviation) -> str:
    where = "" if deviation.process == "main" else f" in {deviation.process}"
    moment = "at the end" if deviation.step is None else f"at step {deviation.step}"
    what = deviation.name if deviation.step is not None else f"parameter `{deviation.name}`"
    values = ""
    if deviation.step is not None:
        values = f", {deviation.before:.9g} and {deviation.after:.9g}"
    return f"{what} {moment}{where}{values}, relative {deviation.relative:.2g}"


def _losses(process: str, before: Trail, after: Trail) -> Iterator[_Apart]:
    steps = min(before.steps, after.steps)
    pairs = zip(before.losses[:steps], after.losses[:steps], strict=False)
    for step, (a, b) in enumerate(pairs):
        if not (is_unobserved(a) or is_unobserved(b)):
            yield _apart(process, "loss", a, b, step=step)


def _samples(process: str, before: Trail, after: Trail) -> Iterator[_Apart]:
    if before.steps != after.steps:
        return
    for name, a in before.samples.items():
        b = after.samples.get(name)
        if b is None:
            continue
        if a.size != b.size or len(a.elements) != len(b.elements):
            yield _Apart(process, name, math.inf, math.inf)
            continue
        norms, elements = _apart(process, name, a.norm, b.norm), _elements(process, name, a, b)
        yield max(norms, elements, key=lambda each: each.relative)


def _elements(process: str, name: str, before: Sample, after: Sample) -> _Apart:
    a, b = before.values(), after.values()
    absolute = _root_mean_square([_difference(x, y) for x, y in zip(a, b, strict=True)])
    scale = max(_root_mean_square(a), _root_mean_square(b))
    return _Apart(process, name, absolute, _relative(absolute, scale))


def _apart(process: str, name: str, a: float, b: float, *, step: int | None = None) -> _Apart:
    absolute = _difference(a, b)
    return _Apart(process, name, absolute, _relative(absolute, max(abs(a), abs(b))), step, a, b)


def _difference(a: float, b: float) -> float:
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    difference = abs(a - b)
    return math.inf if math.isnan(difference) else difference


def _relative(absolute: float, scale: float) -> float:
    if absolute == 0:
        return 0.0
    return absolute / scale if 0 < scale < math.inf else math.inf


def _root_mean_square(values: Sequence[float]) -> float:
    finite = [value for value in values if not math.isnan(value)]
    return math.hypot(*finite) / math.sqrt(len(values)) if values else 0.0


def _moment(apart: _Apart | None) -> tuple[bool, bool, int]:
    if apart is None:
        return True, True, 0
    return False, apart.step is None, apart.step or 0


def _told(apart: _Apart | None) -> Deviation | None:
    return None if apart is None else Deviation(**dataclasses.asdict(apart))
