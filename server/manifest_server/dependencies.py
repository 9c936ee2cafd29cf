"""What a request is handed: the store, the settings, its caller, its body."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Request

from manifest_server.problems import Problem
from manifest_server.settings import ServerSettings
from manifest_server.sqlstore import SqlStore

Scope = Literal["read", "write", "admin"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what they may."""

    name: str
    scopes: frozenset[Scope]
    project: str | None = None
    """The one project whose runs they see; None for all."""

    def check_project(self, project: str) -> None:
        """Refuse what is written into a project that is not the caller's."""
        if self.project is not None and project != self.project:
            detail = f"this token writes into the project '{self.project}' alone"
            raise Problem(403, "project-refused", detail)


OWNER = Caller("owner", frozenset(("read", "write", "admin")))
"""The user of this machine, where no token is asked for."""


def settings_of(request: Request) -> ServerSettings:
    """The settings of this service."""
    settings: ServerSettings = request.app.state.settings
    return settings


def store_of(request: Request) -> SqlStore:
    """The store of this service."""
    store: SqlStore = request.app.state.store
    return store


async def body_of(request: Request) -> bytes:
    """The body as it was sent, uncompressed; parsed once, by whoever knows its form."""
    return await request.body()


def caller_with(scope: Scope) -> Callable[[Request], Caller]:
    """Ask for a caller that has a scope."""

    def caller_of(request: Request) -> Caller:
        if settings_of(request).auth == "tokens":
            raise Problem(
                401,
                "token-missing",
                "send a token: `Authorization: Bearer …`",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if scope not in OWNER.scopes:
            raise Problem(403, "scope-lacking", f"this token may not {scope}")
        return OWNER

    return caller_of


Settings = Annotated[ServerSettings, Depends(settings_of)]
Store = Annotated[SqlStore, Depends(store_of)]
Body = Annotated[bytes, Depends(body_of)]
Reader = Annotated[Caller, Depends(caller_with("read"))]
Writer = Annotated[Caller, Depends(caller_with("write"))]
Admin = Annotated[Caller, Depends(caller_with("admin"))]
