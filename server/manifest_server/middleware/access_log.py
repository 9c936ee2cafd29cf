"""A line of the log for every request; and an answer where the service itself has a fault.

The line has neither the query's values nor any header: those can hold what is nobody's business.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from manifest_server.logs import EVENT
from manifest_server.problems import Problem, answer

Observe = Callable[[Scope, int, float], None]
"""Told of each request when it is over: its scope, its status, the seconds it took."""

_LOG = logging.getLogger("manifest_server.access")
_LONGEST_PATH = 300


class AccessLog:
    """Write down what was asked and what came of it."""

    def __init__(self, app: ASGIApp, observe: Observe) -> None:
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = sent = 0

        async def send_counted(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, send_counted)
        except Exception:
            _LOG.exception("a fault of the service", extra={EVENT: _who(scope)})
            if status:
                raise  # the answer has begun: only the end of the connection can say so
            await answer(_FAULT, scope)(scope, receive, send_counted)
        finally:
            seconds = time.perf_counter() - began
            self._observe(scope, status, seconds)
            if _LOG.isEnabledFor(logging.INFO):
                told = {"status": status, "ms": round(seconds * 1000, 2), "bytes": sent}
                _LOG.info("request", extra={EVENT: _who(scope) | told})


_FAULT = Problem(
    500,
    "internal-error",
    "this is a fault of the service; its log says more under this request's id",
)


def _who(scope: Scope) -> dict[str, Any]:
    state, client = scope.get("state", {}), scope.get("client")
    return {
        "request_id": state.get("request_id"),
        "client": client[0] if client else None,
        "caller": state.get("caller"),
        "method": scope["method"],
        "path": scope["path"][:_LONGEST_PATH],
        "problem": state.get("problem"),
    }
