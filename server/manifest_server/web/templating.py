"""Pages from templates: everything escaped, and a policy that runs no script but our own."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from manifest.describing import (
    capitalized,
    command_line,
    describe,
    shortened_command,
    shown,
)
from manifest.identity import short_id
from manifest.models import Manifest
from manifest.times import age, duration
from manifest_server.web.assets import address_of

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)

IMPACTS: Final = {
    "certain": "changes results",
    "possible": "can change results",
    "unknown": "nobody knows",
    "performance": "changes speed alone",
    "informational": "changes no result",
}
"""What each impact means, in the order in which they matter."""

_ADDRESS: Final = re.compile(r"(https?://[^\s<>\"]+[^\s<>\".,;:)])")
_STATES: Final = {"$absent": "absent", "$redacted": "redacted", "$failed": "failed"}


def page(
    request: Request, template: str, *, status: int = 200, fresh: bool = True, **values: Any
) -> Response:
    """Render a page.

    Args:
        request: What it answers.
        template: Its name in `templates`.
        status: The HTTP status.
        fresh: Whether a browser must ask again each time.
        values: What the template needs.
    """
    visitor = getattr(request.state, "visitor", None)
    body = (
        _environment()
        .get_template(template)
        .render(path=request.url.path, visitor=visitor, now=datetime.now(UTC).isoformat(), **values)
    )
    headers = {
        "Content-Security-Policy": POLICY,
        "Cache-Control": "no-cache" if fresh else "max-age=60",
        "Vary": "Cookie",
    }
    return HTMLResponse(body, status_code=status, headers=headers)


def address(path: str, **parameters: Any) -> str:
    """A path with its query; what is None or empty is left out.

    Example:
        >>> address("/", filter="config.lr > 0.1", project=None)
        '/?filter=config.lr+%3E+0.1'
    """
    given = [
        (name, item)
        for name, value in parameters.items()
        for item in (value if isinstance(value, (list, tuple)) else [value])
        if item not in (None, "")
    ]
    return path + ("?" + urlencode(given) if given else "")


@cache
def _environment() -> Environment:
    environment = Environment(
        autoescape=True,
        loader=PackageLoader("manifest_server.web"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals |= {
        "address": address,
        "asset": address_of,
        "impacts": IMPACTS,
        "short_id": short_id,
    }
    environment.filters |= {
        "age": age,
        "shown": shown,
        "quoted": shlex.quote,
        "said": _said,
        "capitalized": capitalized,
        "command": _command,
        "command_of": _command_of,
        "linked": _linked,
        "patch_kind": _patch_kind,
        "state_of": _state_of,
        "took": _took,
        "utc": _utc,
    }
    return environment


def _said(value: Any) -> str:
    """A value of a manifest on one line, harmless."""
    return shown(describe(value))


def _command(text: str) -> str:
    return shown(shortened_command(text))


def _command_of(manifest: Manifest) -> str:
    return _command(command_line(manifest))


def _linked(text: str) -> Markup:
    """Text in which addresses of the web can be followed."""
    parts = _ADDRESS.split(shown(text))
    return Markup("").join(
        Markup('<a href="{0}" rel="noreferrer">{0}</a>').format(part) if number % 2 else part
        for number, part in enumerate(parts)
    )


def _patch_kind(line: str) -> str:
    if line.startswith(("+++", "---")):
        return "file"
    return {"+": "added", "-": "removed", "@": "place"}.get(line[:1], "same")


def _state_of(value: Any) -> str:
    """How a value looks: as one that is there, or as one of three kinds of nothing."""
    if isinstance(value, Mapping) and len(value) == 1:
        kind = next(iter(value))
        return {"$absent": "absent", "$redacted": "redacted", "$failed": "failed"}.get(
            kind, "value"
        )
    return "value"


def _took(run: Any) -> str:
    return duration(run.started_at, run.ended_at) if run.ended_at else ""


def _utc(moment: str) -> str:
    return moment.partition(".")[0].replace("T", " ").removesuffix("Z") + " UTC"
