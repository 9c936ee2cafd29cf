"""Tags and note of a run, changed in a form by whoever may."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import ValidationError

from manifest.errors import AnnotationsChanged
from manifest.models import Annotations
from manifest_server.api.parameters import RunId
from manifest_server.dependencies import Store, check_visible
from manifest_server.web.templating import page
from manifest_server.web.visitors import Editor

router = APIRouter(include_in_schema=False)


@router.post("/runs/{run_id}/annotations")
def annotate(
    request: Request,
    run_id: RunId,
    store: Store,
    editor: Editor,
    *,
    version: Annotated[int, Form(ge=0, lt=2**31)],
    names: Annotated[list[str], Form(alias="name", default_factory=list, max_length=200)],
    values: Annotated[list[str], Form(alias="value", default_factory=list, max_length=200)],
    note: Annotated[str, Form(max_length=100_000)] = "",
) -> Response:
    """Replace tags and note, unless someone else has changed them since the form was shown."""
    check_visible(store, editor, run_id)
    note = note.replace("\r\n", "\n")
    typed = [(name.strip(), value.strip()) for name, value in zip(names, values, strict=False)]
    tags = [pair for pair in typed if any(pair)]
    fault = _fault(tags, note)
    try:
        if fault is None:
            said = Annotations(version=version, tags=dict(tags), note=note)
            change = editor.change("annotate run", run_id)
            store.put_annotations(run_id, said, by=editor.name, change=change)
            return RedirectResponse(f"/runs/{run_id}#said", status_code=303)
        status, kept = 422, None
    except AnnotationsChanged:
        status, kept = 412, store.get_annotations(run_id)
    return page(
        request,
        "annotations.html",
        status=status,
        run_id=run_id,
        kept=kept,
        fault=fault,
        version=kept.version if kept else version,
        tags=tags,
        note=note,
    )


def _fault(tags: list[tuple[str, str]], note: str) -> str | None:
    if half := [name or value for name, value in tags if not (name and value)]:
        return f"A tag has a name and a value; one of the two is missing beside '{half[0][:80]}'."
    if len(dict(tags)) < len(tags):
        return "Two tags have the same name."
    try:
        Annotations(tags=dict(tags), note=note)
    except ValidationError as error:
        return f"{error.errors()[0]['msg']}."
    return None
