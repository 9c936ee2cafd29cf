"""What varies among several runs: a column for each."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from manifest.canonical import Json, canonical_bytes, plain
from manifest.conclusion import counted_differences
from manifest.describing import (
    NOT_CAPTURED,
    capitalized,
    command_line,
    describe,
    shortened_command,
    shown,
)
from manifest.identity import short_id
from manifest.models import Manifest, TrailComparison, Variation
from manifest.times import age
from manifest_client.rendering.diffs import HEADINGS, QUIET, names_of, source_line
from manifest_client.rendering.terminal import ELLIPSIS, folded, indented, styled

SAME: Final = "·"
"""What stands for the value of the first run."""

_WIDEST_CELL = 14
_DIGEST = re.compile(r"[a-z]+[0-9]+:([0-9a-f]{8})[0-9a-f]+…?|\b([0-9a-f]{8})[0-9a-f]{24,}\b")

_TELLING: Final = ("digest", "blob", "size")
"""What best tells two files, or two generators, apart."""

Columns = Sequence[int]
_Cells = list[tuple[str, str]]
"""The text and the style of a variation in each run."""


def letters(number: int) -> str:
    """The name of a column: A to Z, then AA."""
    before, own = divmod(number, 26)
    return (letters(before - 1) if before else "") + chr(ord("A") + own)


def variations_page(
    conclusion: str,
    variations: Sequence[Variation],
    runs: Sequence[Manifest],
    comparisons: Sequence[TrailComparison | None],
    *,
    width: int,
    is_whole: bool = False,
) -> Group:
    """Several runs: what it comes to, each run, and what varies, the gravest first.

    Args:
        conclusion: What it comes to.
        variations: What to show of it.
        runs: All of them, in order.
        comparisons: Of the trail of each with that of the first, where both have one.
        width: Of the terminal.
        is_whole: Also the values of what changes no results.
    """
    parts: list[RenderableType] = [
        indented(styled((conclusion, "heading")), 0, width),
        Text(),
        *_run_lines(runs, comparisons, width),
    ]
    counts = Counter(each.impact for each in counted_differences(variations))
    for impact, group in itertools.groupby(variations, key=lambda each: each.impact):
        items = list(group)
        parts += [Text(), styled((HEADINGS[impact], impact), (f"  {counts[impact]}", "quiet"))]
        shown_items = [item for item in items if is_whole or not _is_only_named(item)]
        if shown_items:
            parts += _matrix(shown_items, len(runs), width)
            parts += [Text(), *_reasons(shown_items, width)]
        named = [item for item in items if item not in shown_items]
        if named and impact not in QUIET:
            parts.append(styled("  Not captured in some runs:"))
        parts += [names_of(named, width)] if named else []
    parts += _legend(variations, runs, width, is_whole=is_whole)
    return Group(*parts)


def _is_only_named(item: Variation) -> bool:
    return item.impact in QUIET or (item.impact == "unknown" and not all(item.were_captured))


def _run_lines(
    runs: Sequence[Manifest], comparisons: Sequence[TrailComparison | None], width: int
) -> Iterator[Text]:
    commands = [shortened_command(command_line(run)) for run in runs]
    ages = [f"{age(run.started_at)} ago" for run in runs]
    for number, run in enumerate(runs):
        label = f"{letters(number):<{len(letters(len(runs) - 1))}}  {short_id(run.id)}"
        label += f"  {ages[number]:>{max(map(len, ages))}}  "
        comparison = comparisons[number]
        what = [run.name or ""]
        what += [_parting(comparison)] if comparison is not None else []
        what += [commands[number]] if number == 0 or commands[number] != commands[0] else []
        said = folded(" · ".join(filter(None, what)), max(10, width - len(label)))
        yield styled((label, "quiet"), said)


def _parting(comparison: TrailComparison) -> str:
    parted = comparison.divergence
    if parted is not None:
        return f"parts from A at step {parted.step} ({parted.stream})"
    if not comparison.streams:
        return "not comparable with A step by step"
    return f"equal to A in {comparison.steps} step{'s' if comparison.steps != 1 else ''}"


def _matrix(items: Sequence[Variation], run_count: int, width: int) -> Iterator[Text]:
    """Rows of keys, columns of runs; in blocks, each with what varies in it, where many vary."""
    rows = [_cells(item) for item in items]
    widths = [
        max(len(letters(column)), *(len(row[column][0]) for row in rows))
        for column in range(run_count)
    ]
    key_width = min(width // 2, max(len(_key(item)) for item in items))
    space = width - key_width - 2
    blocks: list[Columns] = [range(run_count)]
    if sum(widths) + 2 * run_count > space:
        varying = [n for n in range(1, run_count) if any(row[n][0] != SAME for row in rows)]
        blocks = list(_blocks(varying, widths, space))
        yield from _alike(sorted(set(range(1, run_count)) - set(varying)), width)
    for number, columns in enumerate(blocks):
        if number:
            yield Text()
        labels = "".join(f"  {letters(column):<{widths[column]}}" for column in columns)
        yield styled((f"  {'':<{key_width}}{labels}".rstrip(), "quiet"))
        for item, row in zip(items, rows, strict=True):
            if any(row[column][0] != SAME for column in columns[1:]):
                yield from _row(_key(item), row, columns, widths, key_width)


def _alike(columns: Columns, width: int) -> Iterator[Text]:
    if columns:
        said = f"The same as A in all of these: {', '.join(map(letters, columns))}"
        yield indented(styled((said, "quiet")), 2, width)


def _blocks(columns: Columns, widths: Sequence[int], space: int) -> Iterator[Columns]:
    """As many columns side by side as there is space for, the first run in each block."""
    block, left = [0], space - widths[0] - 2
    for column in columns:
        if len(block) > 1 and widths[column] + 2 > left:
            yield block
            block, left = [0], space - widths[0] - 2
        block.append(column)
        left -= widths[column] + 2
    yield block


def _row(
    key: str, row: _Cells, columns: Columns, widths: Sequence[int], key_width: int
) -> Iterator[Text]:
    if len(key) > key_width:
        yield styled((f"  {key}", "key"))
        key = ""
    cells: list[str | tuple[str, str]] = []
    for column in columns:
        text, style = row[column]
        cells += ["  ", (f"{text:<{widths[column]}}", style)]
    line = styled((f"  {key:<{key_width}}", "key"), *cells)
    line.rstrip()
    yield line


def _cells(item: Variation) -> _Cells:
    told = _telling(item.values)
    said = [
        describe(value) if was_captured else NOT_CAPTURED
        for value, was_captured in zip(told, item.were_captured, strict=True)
    ]
    short = _shortened(said)
    cells = []
    for column, text in enumerate(said):
        is_same = column > 0 and _is_same(item, column)
        style = "quiet" if is_same or not item.were_captured[column] else ""
        cells.append((SAME, style) if is_same else (short[text], style or ("after" * (column > 0))))
    return cells


def _is_same(item: Variation, column: int) -> bool:
    if item.were_captured[0] != item.were_captured[column]:
        return False
    return _are_equal((item.values[0], item.values[column]))


def _telling(values: Sequence[Json]) -> Sequence[Json]:
    """Of lists, what follows their common start; of descriptions, the digest that differs."""
    if all(isinstance(value, list) for value in values):
        end = sum(1 for _ in itertools.takewhile(_are_equal, zip(*values, strict=False)))
        return [
            " ".join([ELLIPSIS] * (end > 0) + [_word(item) for item in value[end:]])
            for value in values
        ]
    maps = [value for value in values if isinstance(value, dict) and len(value) > 1]
    for key in _TELLING:
        told = [value[key] for value in maps if key in value]
        if maps and len(told) == len(maps) and not _are_equal(told):
            return [value[key] if value in maps else value for value in values]
    return values


def _are_equal(values: Sequence[Json]) -> bool:
    return len({canonical_bytes(plain(value)) for value in values}) <= 1


def _word(value: Json) -> str:
    return value if isinstance(value, str) else describe(value)


def _shortened(said: Sequence[str]) -> dict[str, str]:
    """A short text for each, by which they can be told apart."""
    texts = {text: shown(_DIGEST.sub(r"\1\2", text)) for text in said}
    start = _start_of_difference(list(texts.values()))
    ways = (
        texts,
        {text: ELLIPSIS + short[start:] for text, short in texts.items()},
        {text: ELLIPSIS + short[1 - _WIDEST_CELL :] for text, short in texts.items()},
    )
    for way in ways if start else (ways[0], ways[2]):
        cut = {text: folded(short, _WIDEST_CELL) for text, short in way.items()}
        if _are_apart(cut) and (way is not texts or cut == texts or not start):
            return cut
    return {text: f"value {number}" for number, text in enumerate(texts, start=1)}


def _start_of_difference(texts: Sequence[str]) -> int:
    alike = itertools.takewhile(lambda chars: len(set(chars)) == 1, zip(*texts, strict=False))
    end = sum(1 for _ in alike)
    # From where a word begins, so that it is not cut.
    return max(texts[0].rfind(mark, 0, end) + 1 for mark in " ,[=/.")


def _are_apart(texts: dict[str, str]) -> bool:
    return len(set(texts.values())) == len(texts)


def _reasons(items: Sequence[Variation], width: int) -> Iterator[Text]:
    told: set[tuple[str, str]] = set()
    for item in items:
        if (item.reason, item.source) in told:
            continue
        told.add((item.reason, item.source))
        same = [each for each in items if (each.reason, each.source) == (item.reason, item.source)]
        keys = ", ".join(_key(each) for each in same[:3]) + (ELLIPSIS if len(same) > 3 else "")
        yield indented(styled((keys, "key")), 2, width)
        yield indented(styled((capitalized(item.reason), "quiet")), 4, width)
        if item.source:
            yield source_line(item.source)


def _legend(
    variations: Sequence[Variation], runs: Sequence[Manifest], width: int, *, is_whole: bool
) -> Iterator[Text]:
    if not variations:
        return
    yield Text()
    if is_whole or not all(map(_is_only_named, variations)):
        yield styled((f"{SAME} the same as A", "quiet"))
    cells = _cells(variations[0])
    other = next((n for n in range(1, len(runs)) if cells[n][0] != SAME), 1)
    command = f"manifest diff {short_id(runs[0].id)} {short_id(runs[other].id)}"
    said = "Two of them in full, with code: "
    yield indented(styled((said, "quiet"), (command, "key")), 0, width)
    if not is_whole and any(map(_is_only_named, variations)):
        yield styled(("Values and reasons of those only named: add --all.", "quiet"))


def _key(item: Variation) -> str:
    return f"{shown(item.section)} {shown(item.key)}"
