"""The page of several runs side by side: what changed, the most consequential first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from manifest.comparing import sentence
from manifest.conclusion import conclude
from manifest.describing import as_sentence
from manifest.diffing import diff
from manifest.errors import TrailInvalid
from manifest.findings import written
from manifest.identity import is_run_id
from manifest.models import Difference, Impact, Manifest, TrailComparison, Variation
from manifest.varying import diff_many
from manifest_server.dependencies import Store, all_visible
from manifest_server.problems import Problem
from manifest_server.sqlstore import SqlStore
from manifest_server.web.templating import address, page
from manifest_server.web.visitors import Visitor

router = APIRouter(include_in_schema=False)

MOST_RUNS: Final = 50

_QUIET: Final = frozenset({"performance", "informational"})

Ids = Annotated[list[str], Query(max_length=MOST_RUNS, default_factory=list)]


@dataclass(frozen=True, slots=True)
class Row:
    """One key on which the runs do not agree."""

    section: str
    key: str
    values: Sequence[Any]
    were_captured: Sequence[bool]
    reason: str
    source: str
    patch: Sequence[str] = ()
    same_as: str = ""
    """The row that shows the same patch already."""

    @classmethod
    def of_two(cls, found: Difference, shown: dict[str, str]) -> Row:
        """Of a comparison of two runs; `shown` names the row of each patch so far."""
        name = f"{found.section} {found.key}"
        first = shown.setdefault(found.detail, name) if found.detail else name
        return cls(
            section=found.section,
            key=found.key,
            values=(found.before, found.after),
            were_captured=(found.was_captured_before, found.was_captured_after),
            reason=found.reason,
            source=found.source,
            patch=found.detail.splitlines() if first == name else (),
            same_as=first if first != name else "",
        )

    @classmethod
    def of_many(cls, found: Variation) -> Row:
        """Of a comparison of more."""
        return cls(
            found.section, found.key, found.values, found.were_captured, found.reason, found.source
        )

    @property
    def cells(self) -> Iterator[tuple[int, Literal["uncaptured", "same", "value"], Any]]:
        """The number of each run, how its cell looks, and the value."""
        is_of_many = len(self.values) > 2
        for number, value in enumerate(self.values, start=1):
            if not self.were_captured[number - 1]:
                yield number, "uncaptured", None
            elif (
                is_of_many
                and number > 1
                and self.were_captured[0]
                and _is_same(value, self.values[0])
            ):
                yield number, "same", None
            else:
                yield number, "value", value


def _is_same(one: Any, other: Any) -> bool:
    # To Python, True is 1 and 1 is 1.0; to a manifest they are three values.
    return one is other or (one == other and written(one) == written(other))


@dataclass(frozen=True, slots=True)
class Group:
    """All rows of one impact."""

    impact: Impact
    rows: Sequence[Row]
    is_open: bool


@router.get("/compare")
def compare_runs(request: Request, store: Store, visitor: Visitor, ids: Ids) -> Response:
    """What differs between runs, of which the first is what the others are held against."""
    chosen = _chosen(ids)
    runs = all_visible(store, visitor, chosen)
    if len(runs) < 2:
        return page(request, "compare_none.html", run=runs[0] if runs else None)
    conclusion, groups = _compared(store, runs)
    trails = _trails(store, chosen) if len(runs) == 2 else None
    return page(
        request,
        "compare.html",
        runs=runs,
        conclusion=conclusion,
        groups=groups,
        steps=as_sentence(sentence(trails)) if trails else None,
        parts_at=trails.divergence.step if trails and trails.divergence else None,
        baseline_addresses=[_address([run_id, *_without(chosen, run_id)]) for run_id in chosen],
        fewer_addresses=[_address(_without(chosen, run_id)) for run_id in chosen],
        download=address("/compare.json", ids=",".join(chosen)),
    )


@router.get("/compare.json")
def download(store: Store, visitor: Visitor, ids: Ids) -> Response:
    """The same for programs."""
    runs = all_visible(store, visitor, _chosen(ids))
    if len(runs) == 2:
        content: Any = diff(*runs, blobs=store.blobs.text).model_dump(mode="json")
    else:
        found = diff_many(runs, blobs=store.blobs.text)
        content = [each.model_dump(mode="json") for each in found]
    headers = {"Content-Disposition": 'attachment; filename="comparison.json"'}
    return JSONResponse(content, headers=headers)


def _chosen(ids: Sequence[str]) -> list[str]:
    found = list(dict.fromkeys(part for text in ids for part in text.split(",") if part))
    if wrong := [run_id for run_id in found if not is_run_id(run_id)]:
        raise Problem(422, "id-invalid", f"expected whole ids of runs, found {wrong[0][:80]!r}")
    if len(found) > MOST_RUNS:
        detail = f"at most {MOST_RUNS} runs are compared at once, and these are {len(found)}"
        raise Problem(422, "too-many-runs", detail)
    return found


def _compared(store: SqlStore, runs: Sequence[Manifest]) -> tuple[str, list[Group]]:
    if len(runs) == 2:
        found = diff(runs[0], runs[1], blobs=store.blobs.text)
        shown: dict[str, str] = {}
        rows = [(each.impact, Row.of_two(each, shown)) for each in found.differences]
        return found.conclusion, _grouped(rows)
    variations = diff_many(runs, blobs=store.blobs.text)
    return conclude(variations), _grouped([(v.impact, Row.of_many(v)) for v in variations])


def _grouped(rows: Sequence[tuple[Impact, Row]]) -> list[Group]:
    return [
        Group(impact, [row for _, row in group], impact not in _QUIET)
        for impact, group in groupby(rows, key=lambda each: each[0])
    ]


def _trails(store: SqlStore, ids: Sequence[str]) -> TrailComparison | None:
    try:
        found = store.trails.compare(*ids)
    except TrailInvalid:
        return None
    return found if found.streams else None


def _without(ids: Sequence[str], left_out: str) -> list[str]:
    return [run_id for run_id in ids if run_id != left_out]


def _address(ids: Sequence[str]) -> str:
    return f"/compare?ids={','.join(ids)}"
