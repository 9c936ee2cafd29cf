"""What makes a run hard to repeat, and what mends it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from manifest.describing import as_sentence
from manifest.identity import short_id
from manifest.models import Audit, Doubt
from manifest_client.rendering.terminal import indented, styled
from manifest_client.rendering.verdicts import compared, explanation_lines, fact_lines

_OUTCOME_STYLES: Final = {
    "reproducible": "good",
    "reproducible when replayed": "warning",
    "not reproducible": "bad",
    "not judged": "warning",
}
_HEADINGS: Final = {
    "reproducible": "What can part another run from these, and the cure",
    "reproducible when replayed": "What makes each run differ, or can, and the cure",
    "not reproducible": "What makes it hard to repeat, and the cure",
    "not judged": "What makes it hard to repeat, and the cure",
}
_STYLES: Final = {"impossible": "bad", "elsewhere": "informational", "given again": "informational"}
_MOST = 6
_STATE_WIDTH = 11
_LABEL_WIDTH = len("operation")


def audit_page(audit: Audit, *, width: int, dense: str) -> Group:
    """Whether a program is reproducible, how that is known, and what to mend.

    Args:
        audit: What came of it.
        width: Of the page.
        dense: The command that names the operation, where none is known.
    """
    said = as_sentence(audit.sentence)
    headline = styled((audit.outcome.upper(), _OUTCOME_STYLES[audit.outcome]), "  ", said)
    parts: list[RenderableType] = [indented(headline, 0, width)]
    if (verdict := audit.verdict) is None:
        parts += [Text(), *fact_lines([("first", short_id(audit.run))], _LABEL_WIDTH)]
    else:
        facts = list(compared(verdict, ("first", "second")))
        if verdict.outcome == "diverged" and verdict.operation is None:
            facts.append(("operation", f"named by: {dense}"))
        parts += [Text(), *fact_lines(facts, _LABEL_WIDTH)]
        if verdict.explanations:
            parts += [Text(), *explanation_lines(verdict, width)]
    return Group(*parts, *_to_mend(audit, width))


def _to_mend(audit: Audit, width: int) -> list[Text]:
    if audit.doubts:
        return [
            Text(),
            styled((_HEADINGS[audit.outcome], "heading")),
            *(_doubt(each, width) for each in audit.doubts),
        ]
    if audit.outcome == "reproducible":
        return [Text(), styled("Nothing was found that makes it hard to repeat.")]
    return []


def doubt_lines(doubts: Sequence[Doubt], *, width: int, is_whole: bool) -> list[Text]:
    """Each with what was found, where, and what to do."""
    visible = doubts if is_whole else doubts[:_MOST]
    lines = [_doubt(each, width, has_source=is_whole) for each in visible]
    if len(visible) < len(doubts):
        lines.append(styled((f"  … {len(doubts) - len(visible)} more doubts", "quiet")))
    return lines


def _doubt(doubt: Doubt, width: int, *, has_source: bool = False) -> Text:
    head = styled((f"  {doubt.state:<{_STATE_WIDTH}}  ", _STYLES.get(doubt.state, "warning")))
    place = f"  {doubt.place}" if doubt.place else ""
    parts = [styled((doubt.what, "key"), place), styled(as_sentence(doubt.why))]
    if doubt.fix:
        parts.append(styled(("fix: ", "good"), doubt.fix))
    if doubt.source and has_source:
        parts.append(styled((doubt.source, "quiet")))
    rows = Text("\n").join([indented(part, head.cell_len, width) for part in parts])
    return head.append_text(rows[head.cell_len :])
