"""Signing in and out, where the service asks for tokens."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from manifest_server.dependencies import caller_by
from manifest_server.problems import Problem
from manifest_server.web.templating import page
from manifest_server.web.visitors import check_origin, needs_sign_in, sign_in, sign_out

router = APIRouter(include_in_schema=False)


@router.get("/login")
def show_login(
    request: Request, to: Annotated[str, Query(alias="next", max_length=8000)] = "/"
) -> Response:
    """A form that takes a token."""
    if not needs_sign_in(request):
        return RedirectResponse("/", status_code=303)
    return page(request, "login.html", next=to, fault="")


@router.post("/login")
async def log_in(
    request: Request,
    token: Annotated[str, Form(max_length=200)],
    to: Annotated[str, Form(alias="next", max_length=8000)] = "/",
) -> Response:
    """Keep a token that is good; say what is wrong with one that is not."""
    check_origin(request)
    try:
        caller = await caller_by(request, lambda _: token.strip())
        caller.check_scope("read")
    except Problem as problem:
        return page(
            request, "login.html", status=problem.status_code, next=to, fault=problem.detail
        )
    answer = RedirectResponse(_own(to), status_code=303)
    sign_in(request, answer, token.strip())
    return answer


@router.post("/logout")
def log_out(request: Request) -> Response:
    """Forget the token."""
    check_origin(request)
    answer = RedirectResponse("/login", status_code=303)
    sign_out(answer)
    return answer


def _own(to: str) -> str:
    # Nobody is sent elsewhere by a link to this page.
    parts = urlsplit(to)
    is_own = to.startswith("/") and not to.startswith(("//", "/\\")) and not parts.netloc
    return to if is_own and to.isprintable() else "/"
