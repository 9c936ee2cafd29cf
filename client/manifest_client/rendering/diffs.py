"""Where two runs differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from manifest.canonical import Json
from manifest.conclusion import counted_differences
from manifest.describing import (
    NOT_CAPTURED,
    as_sentence,
    capitalized,
    command_line,
    describe,
    shortened_command,
    shown,
)
from manifest.identity import short_id
from manifest.models import Diff, Difference, Impact, Manifest, Variation
from manifest.times import age
from manifest_client.rendering.terminal import folded, indented, styled

HEADINGS: Final[dict[Impact, str]] = {
    "certain": "CHANGES RESULTS",
    "possible": "CAN CHANGE RESULTS",
    "unknown": "EFFECT UNKNOWN",
    "performance": "CHANGES SPEED, NOT RESULTS",
    "informational": "DOES NOT CHANGE RESULTS",
}
"""What each impact is called, the gravest first."""

QUIET: Final = ("performance", "informational")
"""Impacts of what is only named unless everything is asked for."""

_MOST_PATCH_LINES = 40
_MOST_VALUE_ROWS = 4


def diff_page(
    diff: Diff,
    runs: tuple[Manifest, Manifest],
    first_step: str | None,
    *,
    width: int,
    is_whole: bool = False,
) -> Group:
    """Two runs: first what it comes to, then each difference, the gravest first."""
    parts: list[RenderableType] = [
        indented(styled((diff.conclusion, "heading")), 0, width),
        *([indented(styled(as_sentence(first_step)), 0, width)] if first_step else []),
        Text(),
        _run_line("before", runs[0], width),
        _run_line("after ", runs[1], width),
    ]
    counts = Counter(item.impact for item in counted_differences(diff.differences))
    for impact, group in groupby(diff.differences, key=lambda item: item.impact):
        items = list(group)
        heading = styled((HEADINGS[impact], impact), (f"  {counts[impact]}", "quiet"))
        parts += [Text(), heading]
        if impact in QUIET and not is_whole:
            parts.append(names_of(items, width))
        elif is_whole:
            parts += difference_lines(items, width=width, is_whole=True)
        else:
            parts += _with_gaps_named(items, width)
    if not is_whole and any(_is_only_named(item) for item in diff.differences):
        parts += [Text(), styled(("Values and reasons of these too: add --all.", "quiet"))]
    return Group(*parts)


def difference_lines(items: Sequence[Difference], *, width: int, is_whole: bool) -> Iterator[Text]:
    """Each difference: the key, both values or the patch, why it matters, who says so."""
    first_keys: dict[str, str] = {}
    for item in items:
        yield from _values(item, width, is_whole=is_whole)
        key = f"{item.section} {item.key}"
        if item.detail and first_keys.setdefault(item.detail, key) != key:
            yield styled(f"    the same change as {first_keys[item.detail]}")
        elif item.detail:
            yield patch(item.detail, width=width, is_whole=is_whole)
        if item.reason:
            yield indented(styled((capitalized(item.reason), "quiet")), 4, width)
        if item.source:
            yield source_line(item.source)


def source_line(source: str) -> Text:
    """Who says so: never broken, so that an address can be opened."""
    line = styled((f"    {source}", "quiet"))
    line.no_wrap, line.overflow = True, "ignore"
    return line


def names_of(items: Sequence[Difference] | Sequence[Variation], width: int) -> Text:
    """Only the keys, on a few lines."""
    names = ", ".join(f"{item.section} {item.key}" for item in items)
    return indented(styled((folded(names, 6 * (width - 4)), "quiet")), 4, width)


def patch(detail: str, *, width: int, is_whole: bool) -> Text:
    """A unified diff, in colour, with its own signs where there is none."""
    lines = detail.splitlines()
    visible = lines if is_whole else lines[:_MOST_PATCH_LINES]
    rows = [indented(styled((line, _patch_style(line))), 4, width) for line in visible]
    if len(visible) < len(lines):
        rows.append(styled((f"    … {len(lines) - len(visible)} more lines: add --all", "quiet")))
    return Text("\n").join(rows)


def _run_line(role: str, manifest: Manifest, width: int) -> Text:
    when = f"{age(manifest.started_at)} ago"
    label = f"{role}  {short_id(manifest.id)}  {when:>10}  "
    named = f"{manifest.name}: " if manifest.name else ""
    command = named + shortened_command(command_line(manifest))
    return styled((label, "quiet"), folded(command, max(10, width - len(label))))


def _values(item: Difference, width: int, *, is_whole: bool) -> Iterator[Text]:
    key = f"  {shown(item.section)} {shown(item.key)}  "
    if item.detail:
        yield styled((key.rstrip(), "key"))
        return
    before = _value(item.before, was_captured=item.was_captured_before)
    after = _value(item.after, was_captured=item.was_captured_after)
    line = styled((key, "key"), (before, "before"), " → ", (after, "after"))
    if line.cell_len <= width:
        yield line
        return
    most = 10**6 if is_whole else _MOST_VALUE_ROWS * (width - 8)
    yield styled((key.rstrip(), "key"))
    yield indented(styled(("- " + folded(before, most), "before")), 4, width)
    yield indented(styled(("+ " + folded(after, most), "after")), 4, width)


def _value(value: Json, *, was_captured: bool) -> str:
    return describe(value) if was_captured else NOT_CAPTURED


def _with_gaps_named(items: Sequence[Difference], width: int) -> list[Text]:
    lines = list(
        difference_lines(
            [item for item in items if not _is_only_named(item)], width=width, is_whole=False
        )
    )
    for which, is_gap in (
        ("first", lambda item: not item.was_captured_before),
        ("second", lambda item: item.was_captured_before),
    ):
        gaps = [item for item in items if _is_only_named(item) and is_gap(item)]
        if gaps:
            lines += [styled(f"  Not captured in the {which} run:"), names_of(gaps, width)]
    return lines


def _is_only_named(item: Difference) -> bool:
    is_gap = not (item.was_captured_before and item.was_captured_after)
    return item.impact in QUIET or (item.impact == "unknown" and is_gap)


def _patch_style(line: str) -> Any:
    if line.startswith(("+++", "---")):
        return "heading"
    return {"+": "after", "-": "before", "@": "key"}.get(line[:1], "")
