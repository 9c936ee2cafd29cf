"""What went wrong, as a page where a browser asked for one."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response

from manifest_server.web.templating import address, page
from manifest_server.web.visitors import needs_sign_in

_Handler = Callable[[Request, Exception], Awaitable[Response]]


def add_error_pages(app: FastAPI) -> None:
    """Have browsers shown a page where programs are told a problem document."""
    for kind, handler in list(app.exception_handlers.items()):
        app.add_exception_handler(kind, _with_page(handler))


def _with_page(handler: Any) -> _Handler:
    async def handle(request: Request, error: Exception) -> Response:
        answer: Response = await handler(request, error)
        is_page = "text/html" in request.headers.get("accept", "")
        if not is_page or request.url.path.startswith("/api/"):
            return answer
        if answer.status_code == 401 and needs_sign_in(request) and request.method == "GET":
            to = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(address("/login", next=to), status_code=303)
        problem = json.loads(bytes(answer.body))
        shown = page(request, "problem.html", status=answer.status_code, problem=problem)
        for name in ("retry-after", "allow"):
            if name in answer.headers:
                shown.headers[name] = answer.headers[name]
        return shown

    return handle
