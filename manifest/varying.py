"""What varies among several runs: each key with the value of every run, and whether it matters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from manifest.canonical import ABSENT, Json
from manifest.diffing import Judged, differences, rank
from manifest.findings import Blobs
from manifest.models import Manifest, Variation

_Cell = tuple[Json, bool]
_Row = Mapping[int, Judged]
_Key = tuple[str, str]


def diff_many(manifests: Sequence[Manifest], *, blobs: Blobs | None = None) -> list[Variation]:
    """Find every key on which not all of several runs agree, the most consequential first.

    The impact is the gravest of those between the first run and each other one, and the reason is
    that of this pair.

    Args:
        manifests: The runs; each is compared with the first.
        blobs: The bytes of a blob of any run, or None.
    """
    if not manifests:
        return []
    rows: dict[_Key, dict[int, Judged]] = {}
    for column, manifest in enumerate(manifests[1:], start=1):
        for each in differences(manifests[0], manifest, blobs=blobs):
            rows.setdefault((each.section, each.key), {})[column] = each
    gravest = [min(row.values(), key=rank) for row in rows.values()]
    return [_variation(rows, each, len(manifests)) for each in sorted(gravest, key=rank)]


def _variation(rows: Mapping[_Key, _Row], gravest: Judged, count: int) -> Variation:
    row = rows[gravest.section, gravest.key]
    above = _rows_above(rows, gravest)
    first = (gravest.before, gravest.was_captured_before)
    cells = [first, *(_cell(column, row, above, first) for column in range(1, count))]
    return Variation(
        section=gravest.section,
        key=gravest.key,
        values=tuple(value for value, _ in cells),
        were_captured=tuple(was_captured for _, was_captured in cells),
        impact=gravest.impact,
        reason=_of_many(gravest.reason),
        source=gravest.source,
    )


def _cell(column: int, row: _Row, above: Sequence[_Row], first: _Cell) -> _Cell:
    """What a run has: its own value, none as it lacks all around it, or that of the first run."""
    if column in row:
        return row[column].after, row[column].was_captured_after
    for differing in above:
        if column in differing:
            was_captured = differing[column].was_captured_after
            return (ABSENT if was_captured else None), was_captured
    return first


def _rows_above(rows: Mapping[_Key, _Row], difference: Judged) -> list[_Row]:
    ends = [match.start() for match in re.finditer(r"\.", difference.key)]
    keys = [(difference.section, difference.key[:end]) for end in ends]
    return [rows[key] for key in keys if key in rows]


def _of_many(reason: str) -> str:
    # A reason is that of one pair; which run lacks a value, its cell says.
    return re.sub("^not captured in the (first|second) run", "not captured in some runs", reason)
