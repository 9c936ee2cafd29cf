"""Two runs that were recorded densely: the first operation on which they do not agree."""

from __future__ import annotations

from collections.abc import Mapping

from manifest.models import OperationDifference
from manifest.operations import Operation, Operations
from manifest.trail import Trail


def first_operation(
    before: Mapping[str, Trail], after: Mapping[str, Trail]
) -> OperationDifference | None:
    """The earliest operation that gave other bits, or that only one run has at its place.

    Only of steps that both runs recorded densely, and in whole.
    """
    found = [
        difference
        for process in sorted(before.keys() & after.keys())
        if (difference := _first(process, before[process].operations, after[process].operations))
    ]
    return min(found, key=lambda each: each.step, default=None)


def operation_sentence(found: OperationDifference) -> str:
    """Name an operation that differs.

    Example:
        >>> operation_sentence(
        ...     OperationDifference(process="main", step=3, name="aten.mm.default", place="t.py:4")
        ... )
        'the first operation that differs is `aten.mm.default` at step 3, t.py:4'
    """
    where = f" in {found.process}" if found.process != "main" else ""
    place = f", {found.place}" if found.place else ""
    node = f" (backward, {found.node})" if found.node else ""
    hidden = "; what was compiled was not observed" if found.has_compiled else ""
    if found.other != found.name and found.other:
        return (
            f"at step {found.step}{where} one run goes on with `{found.name}`{place}{node}, "
            f"the other with `{found.other}`{hidden}"
        )
    return (
        f"the first operation that differs is `{found.name}` at step {found.step}{where}"
        f"{place}{node}{hidden}"
    )


def _first(process: str, before: Operations, after: Operations) -> OperationDifference | None:
    for step in sorted(before.steps.keys() & after.steps.keys()):
        pairs = zip(before.steps[step], after.steps[step], strict=False)
        differing = (pair for pair in enumerate(pairs) if _unlike(*pair[1]))
        ordinal, pair = next(differing, (0, None))
        if pair is None:
            longer = max(before.steps[step], after.steps[step], key=len)
            ordinal = min(len(before.steps[step]), len(after.steps[step]))
            if ordinal == len(longer):
                continue
            pair = longer[ordinal], Operation("the end of the step", "")
        one, other = pair
        return OperationDifference(
            process=process,
            step=step,
            ordinal=ordinal,
            name=one.name,
            other=other.name,
            place=one.place,
            node=one.node,
            has_compiled=before.has_compiled or after.has_compiled,
        )
    return None


def _unlike(one: Operation, other: Operation) -> bool:
    return one.name != other.name or one.digest != other.digest
