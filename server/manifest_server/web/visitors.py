"""Who looks at a page: the user of this machine, or whoever has signed in with a token.

The token lies in a cookie that scripts cannot read and other sites cannot have sent along; what
changes something is taken from our own pages alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response

from manifest.models import Scope
from manifest_server.callers import Caller
from manifest_server.dependencies import caller_by, token_missing
from manifest_server.problems import Problem
from manifest_server.settings import ServerSettings

COOKIE: Final = "manifest_token"
_DAYS: Final = 30


def visitor_with(scope: Scope) -> Callable[[Request], Awaitable[Caller]]:
    """Ask for a visitor that has a scope; whoever has none is asked to sign in."""

    async def visitor_with_scope(request: Request) -> Caller:
        if request.method not in ("GET", "HEAD"):
            check_origin(request)
        caller = await caller_by(request, _kept_secret)
        caller.check_scope(scope)
        request.state.visitor = caller
        return caller

    return visitor_with_scope


def sign_in(request: Request, response: Response, secret: str) -> None:
    """Have the browser keep a token that is known to be good."""
    is_secure = request.url.scheme == "https"
    response.set_cookie(
        COOKIE,
        secret,
        max_age=_DAYS * 86_400,
        httponly=True,
        samesite="strict",
        secure=is_secure,
    )


def sign_out(response: Response) -> None:
    """Have the browser forget it."""
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")


def needs_sign_in(request: Request) -> bool:
    """Whether this service asks for tokens at all."""
    settings: ServerSettings = request.app.state.settings
    return settings.auth == "tokens"


def _kept_secret(request: Request) -> str:
    secret = request.cookies.get(COOKIE, "")
    if not secret:
        raise token_missing("sign in with a token")
    return secret


def check_origin(request: Request) -> None:
    """Take changes from our own pages alone."""
    site = request.headers.get("sec-fetch-site")  # a browser says it, and no page can
    origin = request.headers.get("origin")
    if site is not None:
        is_ours = site in ("same-origin", "none")
    else:
        is_ours = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    if not is_ours:
        detail = "this is changed from the service's own pages alone"
        raise Problem(403, "origin-refused", detail)


Visitor = Annotated[Caller, Depends(visitor_with("read"))]
Editor = Annotated[Caller, Depends(visitor_with("write"))]
Administrator = Annotated[Caller, Depends(visitor_with("admin"))]
