"""The run before a run: what people compare with most often, one click away."""

from __future__ import annotations

import shlex
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from manifest.filtering import parse_filter
from manifest.models import RunSummary
from manifest.summaries import summarize
from manifest_server.api.parameters import RunId
from manifest_server.dependencies import Store, visible
from manifest_server.sqlstore import SqlStore
from manifest_server.web.templating import page
from manifest_server.web.visitors import Visitor

router = APIRouter(include_in_schema=False)

_LOOKED_AT: Final = 500
_PORTION: Final = 50
_NO_REPLAY: Final = parse_filter("replay_of is null")


@router.get("/runs/{run_id}/before")
def compare_with_before(
    request: Request, run_id: RunId, store: Store, visitor: Visitor
) -> Response:
    """Lead to the comparison of a run with the one before it."""
    run = summarize(visible(store, visitor, run_id))
    before = run.replay_of or run_before(store, run)
    if before is None:
        return page(request, "compare_none.html", run=run, program=program(run.command))
    return RedirectResponse(f"/compare?ids={before},{run_id}", status_code=303)


def run_before(store: SqlStore, run: RunSummary) -> str | None:
    """The newest of the runs before one that ran the same program in the same project."""
    wanted = program(run.command)
    before = run.id
    for _ in range(0, _LOOKED_AT, _PORTION):
        found = store.list_runs(
            limit=_PORTION, before=before, project=run.project, wanted=_NO_REPLAY
        )
        for each in found:
            if program(each.command) == wanted:
                return each.id
        if len(found) < _PORTION:
            return None
        before = found[-1].id
    return None


def program(command: str) -> str:
    """What a command runs, whatever starts it and with which arguments.

    Example:
        >>> program("/usr/bin/python3 -u train.py --lr 0.1"), program("torchrun -m nlp.train")
        ('train.py', 'nlp.train')
    """
    words = _words(command)
    for place, word in enumerate(words):
        if word == "-m" and place + 1 < len(words):
            return words[place + 1]
        if word.endswith(".py"):
            return word
    return words[0].rpartition("/")[2] if words else ""


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # it was cut within quotes
        return command.split()
