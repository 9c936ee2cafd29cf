"""Requests that call the service by a name that is not its own are refused.

A page of a stranger's site whose name is made to point at this machine could otherwise read runs
through the user's browser.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from manifest_server.problems import Problem, answer

_ANY = "*"


class Hosts:
    """Let only requests to known names pass."""

    def __init__(self, app: ASGIApp, allowed: Iterable[str]) -> None:
        self._app = app
        self._allowed = frozenset(name.lower() for name in allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or _ANY in self._allowed:
            await self._app(scope, receive, send)
            return
        said = Headers(scope=scope).getlist("host")
        if len(said) != 1 or not said[0]:
            problem = Problem(400, "host-missing", "say in one Host header which service is meant")
        elif _name(said[0]) not in self._allowed:
            detail = "this service goes by another name; MANIFEST_SERVER_ALLOWED_HOSTS lists those"
            problem = Problem(421, "host-refused", detail)
        else:
            await self._app(scope, receive, send)
            return
        await answer(problem, scope)(scope, receive, send)


def _name(host: str) -> str:
    """A Host header without its port: an IPv6 address keeps its brackets."""
    name, colon, port = host.rpartition(":")
    is_port = bool(colon) and port.isascii() and port.isdigit() and not name.endswith(":")
    return (name if is_port else host).lower()
