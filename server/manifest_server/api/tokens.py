"""Tokens: make, list, revoke; and who changed what."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from manifest.models import AuditEntry, Scope, Token
from manifest_server.api.parameters import RUN_ID, Limit, RunId
from manifest_server.dependencies import Admin, Anyone, Store
from manifest_server.problems import documented

router = APIRouter(tags=["tokens"], responses=documented(401, 403, 422))


class NewToken(BaseModel):
    """What a token is for, and what it may."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(min_length=1, max_length=200, examples=["cluster"])]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=3, examples=[["read", "write"]])]
    project: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    days: Annotated[int, Field(ge=1, le=3650)] | None = Field(
        default=None, description="After how many days it expires; never by default."
    )


class MadeToken(BaseModel):
    """A token, this once."""

    token: Token
    secret: str = Field(description="The token itself: it is shown now and never again.")


class Identity(BaseModel):
    """Who asks, and what they may."""

    name: str
    scopes: list[Scope]
    project: str | None = Field(description="The one project that they see; null for all.")


@router.get("/whoami")
def get_identity(caller: Anyone) -> Identity:
    """Whose the token is, and what it is good for."""
    return Identity(name=caller.name, scopes=sorted(caller.scopes), project=caller.project)


@router.post("/tokens", status_code=201)
def create_token(asked: NewToken, store: Store, caller: Admin) -> MadeToken:
    """Make a token; only its digest is kept."""
    lifetime = timedelta(days=asked.days) if asked.days is not None else None
    token, secret = store.create_token(
        name=asked.name, scopes=asked.scopes, project=asked.project, lifetime=lifetime
    )
    caller.audit(store, "create token", token.id)
    return MadeToken(token=token, secret=secret)


@router.get("/tokens")
def list_tokens(store: Store, _: Admin) -> list[Token]:
    """What is known of every token, the newest first."""
    return store.list_tokens()


@router.delete("/tokens/{run_id}", status_code=204, responses=documented(404))
def revoke_token(run_id: RunId, store: Store, caller: Admin) -> None:
    """Let a token be of no use any more, from the next request on."""
    store.revoke_token(run_id)
    caller.audit(store, "revoke token", run_id)


@router.get("/audit")
def list_audit(
    store: Store,
    _: Admin,
    limit: Limit = 50,
    before: Annotated[str | None, Query(pattern=f"^{RUN_ID.pattern}$")] = None,
) -> list[AuditEntry]:
    """Who changed what, the newest first."""
    return store.list_audit_entries(limit=limit, before=before)
