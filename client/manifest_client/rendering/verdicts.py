"""What a replay needs, and what it showed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from rich.console import Group, RenderableType
from rich.text import Text

from manifest.describing import as_sentence
from manifest.identity import short_id
from manifest.models import Restore, Tolerance, TrailComparison, Verdict
from manifest.restoring import put_back
from manifest_client.rendering.diffs import HEADINGS, difference_lines
from manifest_client.rendering.terminal import indented, styled

if TYPE_CHECKING:
    from manifest.planning import Plan, PlanItem

_STATES: Final = ("impossible", "approximate", "changed", "restorable", "equal already")
_STATE_STYLES: Final = {
    "impossible": "bad",
    "approximate": "warning",
    "changed": "warning",
    "restorable": "good",
    "equal already": "good",
}
_OUTCOME_STYLES: Final = {
    "identical": "good",
    "within tolerance": "good",
    "diverged": "bad",
    "not replayable": "warning",
}
_RESTORE_STYLES: Final = {"restored": "good", "skipped": "warning", "failed": "bad"}
_MOST_EXPLANATIONS = 5
_MOST_RESTORES = 12
_MOST_TENSORS = 4
_LABEL_WIDTH = len("compared")


def plan_summary(plan: Plan) -> Text:
    """The plan in one line."""
    counts = Counter(item.state for item in plan.items)
    parts = [f"{counts[state]} {state}" for state in reversed(_STATES) if counts[state]]
    return styled(("manifest: ", "quiet"), "plan: " + ", ".join(parts))


def plan_page(plan: Plan, *, width: int) -> Group:
    """Every item of the plan, what is in the way first."""
    parts: list[RenderableType] = [_plan_conclusion(plan), Text()]
    for state in _STATES:
        parts += [_plan_item(item, width) for item in plan.items if item.state == state]
    return Group(*parts)


def plan_concerns(plan: Plan, *, width: int) -> Group:
    """Only what may change the bits and is not put back."""
    concerns = [item for item in plan.items if item.state in ("impossible", "approximate")]
    return Group(*[_plan_item(item, width) for item in concerns])


def verdict_page(
    verdict: Verdict, *, roles: tuple[str, str], width: int, is_whole: bool = False
) -> Group:
    """The outcome first, then what was compared, then what can explain a difference.

    Args:
        verdict: What the comparison of two runs showed.
        roles: What the runs are to one another.
        width: Of the page.
        is_whole: Fold nothing.
    """
    style = _OUTCOME_STYLES[verdict.outcome]
    headline = styled((verdict.outcome.upper(), style), "  ", as_sentence(verdict.sentence))
    parts: list[RenderableType] = [indented(headline, 0, width), Text()]
    facts = [*(("changed", change) for change in verdict.changed), *compared(verdict, roles)]
    if verdict.restores:
        facts.append(("put back", put_back(verdict.restores)))
    width_of_labels = max(_LABEL_WIDTH, *(len(label) for label, _ in facts))
    parts += fact_lines(facts, width_of_labels)
    parts += _restores(verdict, width, is_whole=is_whole)
    if verdict.tolerance is not None:
        parts += fact_lines(_allowed(verdict.tolerance), width_of_labels)
    parts += _reasons(verdict, width)
    parts += _explanations(verdict, width, is_whole=is_whole)
    return Group(*parts)


def fact_lines(facts: Iterable[tuple[str, str]], label_width: int) -> list[Text]:
    """What is known, each behind its label."""
    return [styled((f"  {label:<{label_width}}  ", "quiet"), value) for label, value in facts]


def compared(verdict: Verdict, roles: tuple[str, str]) -> Iterator[tuple[str, str]]:
    """Which runs were compared, and where they part."""
    yield roles[0], short_id(verdict.original)
    if verdict.replay is not None:
        yield roles[1], short_id(verdict.replay)
    if verdict.comparison is not None:
        yield from _compared(verdict.comparison)
    if (found := verdict.operation) is not None:
        yield "operation", f"{found.name}, step {found.step}, {found.place}"


def _compared(comparison: TrailComparison) -> Iterator[tuple[str, str]]:
    steps = f"{comparison.steps} step" + ("s" if comparison.steps != 1 else "")
    yield "compared", f"{steps} · {', '.join(comparison.streams) or 'nothing'}"
    first = comparison.divergence
    if first is None:
        return
    tensors = list(first.tensors[:_MOST_TENSORS])
    more = len(first.tensors) - len(tensors)
    place = f"step {first.step}, {first.stream}"
    yield "differs", place + (f" ({first.process})" if first.process != "main" else "")
    if tensors:
        yield "tensors", ", ".join(tensors) + (f" and {more} more" if more > 0 else "")
    if first.equal_streams:
        yield "equal", ", ".join(first.equal_streams)


def _restores(verdict: Verdict, width: int, *, is_whole: bool) -> list[Text]:
    telling = [item for item in verdict.restores if item.outcome != "equal already"]
    visible = telling if is_whole else telling[:_MOST_RESTORES]
    lines = [_restore(item, width) for item in visible]
    if len(visible) < len(telling) and verdict.replay is not None:
        more = len(telling) - len(visible)
        where = f"manifest show {short_id(verdict.replay)} --json"
        lines.append(styled((f"  and {more} more: {where}", "quiet")))
    return lines


def _restore(item: Restore, width: int) -> Text:
    times = f" (and {item.number - 1} more)" if item.number > 1 else ""
    head = styled((f"  {item.outcome:<13}  ", _RESTORE_STYLES[item.outcome]))
    body = styled((item.what, "key"), f"  {item.reason}{times}")
    rows = indented(body, head.cell_len, width)
    return head.append_text(rows[head.cell_len :])


def _allowed(tolerance: Tolerance) -> Iterator[tuple[str, str]]:
    yield "allowed", f"rtol {tolerance.rtol:g}, atol {tolerance.atol:g}"
    losses, tensors = tolerance.steps, tolerance.tensors
    yield "numbers", f"losses of {losses} steps · samples of {tensors} parameters, not all elements"


def _reasons(verdict: Verdict, width: int) -> list[Text]:
    reasons = [reason for reason in verdict.reasons if reason != verdict.sentence]
    return [indented(styled(f"- {reason}"), 2, width) for reason in reasons]


def _explanations(verdict: Verdict, width: int, *, is_whole: bool) -> list[Text]:
    if verdict.outcome != "diverged":
        return []
    if not verdict.explanations:
        line = "Nothing that was captured differs: the program itself may not be deterministic."
        return [Text(), indented(styled(line), 0, width)]
    return [Text(), *explanation_lines(verdict, width, is_whole=is_whole)]


def explanation_lines(verdict: Verdict, width: int, *, is_whole: bool = False) -> list[Text]:
    """What differs between two runs that can explain that they parted."""
    lines = [styled(("What can explain it", "heading"))]
    visible = verdict.explanations if is_whole else verdict.explanations[:_MOST_EXPLANATIONS]
    lines += difference_lines(visible, width=width, is_whole=is_whole)
    if len(visible) < len(verdict.explanations) and verdict.replay is not None:
        runs = f"{short_id(verdict.original)} {short_id(verdict.replay)}"
        more = len(verdict.explanations) - len(visible)
        lines.append(styled((f"  and {more} more: manifest diff {runs}", "quiet")))
    return lines


def _plan_conclusion(plan: Plan) -> Text:
    if plan.blocking:
        count = len(plan.blocking)
        what = "1 thing is" if count == 1 else f"{count} things are"
        return styled(("NOT REPLAYABLE", "warning"), f"  {what} missing that can change the bits.")
    if any(item.state in ("impossible", "approximate") for item in plan.items):
        return styled(("REPLAYABLE", "good"), "  with reservations; nothing was run yet.")
    return styled(("REPLAYABLE", "good"), "  Everything can be put back; nothing was run yet.")


def _plan_item(item: PlanItem, width: int) -> Text:
    state = styled((f"  {item.state:<13}  ", _STATE_STYLES[item.state]))
    impact = f" ({HEADINGS[item.impact].lower()})" if item.state in _STATES[:2] else ""
    body = styled((item.what, "key"), f"  {item.why}", (impact, item.impact))
    rows = indented(body, state.cell_len, width)
    return state.append_text(rows[state.cell_len :])
