"""The page of runs: searched in the language of the API, counted by what they have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final, Literal, Self

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from manifest.canonical import ABSENT
from manifest.describing import describe, is_absent
from manifest.errors import FilterInvalid
from manifest.filtering import (
    TAGS,
    Comparison,
    Field,
    Filter,
    expected_next,
    parse_field,
    parse_filter,
    written,
)
from manifest.models import FacetValue, RunSummary
from manifest.times import seconds_between
from manifest_server.dependencies import Store
from manifest_server.problems import Problem
from manifest_server.sqlstore import SqlStore
from manifest_server.web.templating import address, page
from manifest_server.web.visitors import Visitor

router = APIRouter(include_in_schema=False)

PAGE_RUNS: Final = 50
COUNTED_RUNS: Final = 5000
"""Among how many of the newest runs values are counted, so that a million leave the page quick."""

_MOST_COLUMNS: Final = 8
_FACETS: Final = ("status", "project", "outcome")
_MOST_VALUES: Final = 8

SORTED_RUNS: Final = 500
"""How many of the newest runs that fit are sorted, where another order is asked for."""

Text = Annotated[str, Query(max_length=4000)]


@dataclass(frozen=True, slots=True)
class Facet:
    """How many of the runs have each value of a field, and where a choice of it leads."""

    field: str
    values: Sequence[FacetValue]
    addresses: Sequence[str]
    chosen: Sequence[bool]


@dataclass(frozen=True, slots=True)
class Order:
    """By which field runs are sorted, if not the newest first."""

    name: str
    field: Field | None
    """None is how long a run took, which is no field."""
    is_descending: bool

    @classmethod
    def of(cls, text: str) -> Self:
        """Read an order: a field or ``took``, with a minus before it for the largest first."""
        name = text.removeprefix("-")
        try:
            field = None if name == "took" else parse_field(name)
        except FilterInvalid as error:
            raise Problem(422, "sort-invalid", str(error)) from None
        return cls(name, field, is_descending=text.startswith("-"))


@router.get("/")
def show_runs(
    request: Request,
    store: Store,
    visitor: Visitor,
    *,
    filter: Text = "",  # noqa: A002 -- as the address says
    columns: Text = "",
    sort: Text = "",
    before: Annotated[str | None, Query(max_length=36)] = None,
) -> Response:
    """Runs, the newest first."""
    wanted, fault = _wanted(filter)
    fields = _fields(columns)
    order = Order.of(sort) if sort else None
    most = SORTED_RUNS if order else PAGE_RUNS
    found: list[RunSummary] = []
    facets: list[Facet] = []
    if fault is None:
        project = visitor.project
        found = store.list_runs(
            limit=most + 1, before=None if order else before, project=project, wanted=wanted
        )
        counted = store.tally(
            _FACETS, newest=COUNTED_RUNS, limit=_MOST_VALUES, project=project, wanted=wanted
        )
        to = partial(address, "/", columns=columns, sort=sort)
        facets = [_facet(name, counted[name], filter, to) for name in _FACETS]
    is_more = len(found) > most
    fitting = found[:most]
    shown = (_sorted(store, fitting, order) if order else fitting)[:PAGE_RUNS]
    here = partial(address, "/", filter=filter, columns=columns)
    return page(
        request,
        "runs.html",
        filter=filter,
        fault=fault,
        columns=columns,
        before=before,
        fields=[name for name, _ in fields],
        runs=shown,
        cells=_cells(store, shown, [field for _, field in fields]),
        facets=[facet for facet in facets if len(facet.values) > 1 or any(facet.chosen)],
        older=here(before=shown[-1].id) if is_more and not order else None,
        sort=sort,
        order=order,
        orders=_orders(here, sort, [name for name, _ in fields]),
        fitting=len(fitting),
        is_more=is_more,
        counted_runs=COUNTED_RUNS,
        newest=here() if before and not order else None,
        is_of_many_projects=len({run.project for run in shown}) > 1,
        is_running=any(run.status == "running" for run in shown),
    )


@router.get("/completions")
def complete(
    store: Store, visitor: Visitor, text: Text, of: Literal["filter", "columns"] = "filter"
) -> Response:
    """What may follow at the end of a filter, or of a list of columns, as far as it was typed."""
    head, word = _last_word(text)
    found = store.list_fields(word, limit=12, project=visitor.project) if word else []
    expected = expected_next(head) if of == "filter" else []
    options = [name for name in [*found, *expected] if name.startswith(word) and name != word]
    return JSONResponse({"word": word, "options": options[:12]})


def _wanted(text: str) -> tuple[Filter | None, FilterInvalid | None]:
    if not text.strip():
        return None, None
    try:
        return parse_filter(text), None
    except FilterInvalid as error:
        return None, error


def _fields(columns: str) -> list[tuple[str, Field]]:
    found: list[tuple[str, Field]] = []
    for name in filter(None, (part.strip() for part in columns.split(","))):
        try:
            found.append((name, parse_field(name)))
        except FilterInvalid as error:
            raise Problem(422, "columns-invalid", str(error)) from None
    return found[:_MOST_COLUMNS]


def _sorted(store: SqlStore, runs: Sequence[RunSummary], order: Order) -> list[RunSummary]:
    """Runs by a value: numbers, then texts, then whatever else; those without one are last."""
    if order.field is None:
        values = {run.id: seconds_between(run.started_at, run.ended_at) for run in runs}
    else:
        values = {key: cell for key, (cell,) in _cells(store, runs, [order.field]).items()}
    ranked = [(run, _rank(values[run.id])) for run in runs]
    there = [(run, rank) for run, rank in ranked if rank is not None]
    there.sort(key=lambda pair: pair[1], reverse=order.is_descending)
    return [run for run, _ in there] + [run for run, rank in ranked if rank is None]


def _rank(value: Any) -> tuple[int, float, str] | None:
    if value is None or is_absent(value):
        return None
    if isinstance(value, (int, float)):
        return 0, value, ""
    return (1, 0, value) if isinstance(value, str) else (2, 0, describe(value))


def _orders(
    here: Callable[..., str], sort: str, columns: Sequence[str]
) -> dict[str, tuple[str, str]]:
    """Where the head of each column leads, and how the column is sorted now, as ARIA says it."""
    found = {}
    for name in ("status", "name", *columns, "steps", "took", "started_at"):
        following = {f"-{name}": name, name: ""}.get(sort, f"-{name}")
        now = {f"-{name}": "descending", name: "ascending"}.get(sort, "none")
        found[name] = here(sort=following), now
    return found


def _cells(
    store: SqlStore, runs: Sequence[RunSummary], fields: Sequence[Field]
) -> dict[str, list[Any]]:
    """The values of further columns, by run."""
    ids = [run.id for run in runs]
    names = {field.section for field in fields} - {"", TAGS}
    values = store.get_values(ids, names) if names else {}
    tags = store.get_tags(ids) if any(field.section == TAGS for field in fields) else {}
    return {
        run.id: [
            _cell(run, {**values.get(run.id, {}), TAGS: tags.get(run.id, {})}, f) for f in fields
        ]
        for run in runs
    }


def _cell(run: RunSummary, sections: Mapping[str, Mapping[str, Any]], field: Field) -> Any:
    if not field.section:
        return getattr(run, field.key, ABSENT)
    return sections.get(field.section, {}).get(field.key, ABSENT)


def _facet(name: str, values: Sequence[FacetValue], text: str, to: Callable[..., str]) -> Facet:
    conditions = [written(Comparison(Field("", name), "=", str(each.value))) for each in values]
    chosen = [condition in text for condition in conditions]
    addresses = [
        to(filter=_toggled(text, condition, is_chosen=is_chosen))
        for condition, is_chosen in zip(conditions, chosen, strict=True)
    ]
    return Facet(name, values, addresses, chosen)


def _toggled(text: str, condition: str, *, is_chosen: bool) -> str:
    text = text.strip()
    if not is_chosen:
        both = f"({text})" if " or " in text else text
        return f"{both} and {condition}" if text else condition
    for part in (f" and {condition}", f"{condition} and ", condition):
        if part in text:
            return text.replace(part, "", 1)
    return text


def _last_word(text: str) -> tuple[str, str]:
    start = max(map(text.rfind, " (,")) + 1
    return text[:start], text[start:]
