"""The page of tokens: who may do what, and who did, for administrators."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from manifest.models import Scope
from manifest_server.callers import Caller
from manifest_server.dependencies import Store
from manifest_server.sqlstore import SqlStore
from manifest_server.web.templating import page
from manifest_server.web.visitors import Administrator

router = APIRouter(include_in_schema=False)

_MOST_ENTRIES: Final = 50


@router.get("/tokens")
def show_tokens(request: Request, store: Store, admin: Administrator) -> Response:
    """All tokens, without the secrets, and the last changes."""
    return _page(request, store, admin)


@router.post("/tokens")
def create_token(
    request: Request,
    store: Store,
    admin: Administrator,
    *,
    name: Annotated[str, Form(min_length=1, max_length=200)],
    scope: Annotated[Scope, Form()],
    project: Annotated[str, Form(max_length=200)] = "",
    days: Annotated[int | None, Form(ge=1, le=3650)] = None,
) -> Response:
    """Make a token, and show it this once."""
    lifetime = timedelta(days=days) if days else None
    token, secret = store.create_token(
        name=name.strip(), scopes=[scope], project=project.strip() or None, lifetime=lifetime
    )
    admin.audit(store, "create token", token.id)
    return _page(request, store, admin, made=secret)


@router.post("/tokens/{token_id}/revoke")
def revoke_token(token_id: str, store: Store, admin: Administrator) -> Response:
    """Take a token back."""
    store.revoke_token(token_id)
    admin.audit(store, "revoke token", token_id)
    return RedirectResponse("/tokens", status_code=303)


def _page(request: Request, store: SqlStore, admin: Caller, made: str = "") -> Response:
    return page(
        request,
        "tokens.html",
        tokens=store.list_tokens(),
        entries=store.list_audit_entries(limit=_MOST_ENTRIES),
        made=made,
        own=admin.token_id,
    )
