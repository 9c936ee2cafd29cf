"""Pages from templates: everything escaped, and a policy that runs no script but our own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from manifest.describing import (
    as_sentence,
    capitalized,
    command_line,
    describe,
    shortened_command,
    shown,
)
from manifest.errors import FilterInvalid
from manifest.filtering import Comparison, Field, written
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

_LONGEST_VALUE: Final = 160
_LONGEST_START: Final = 120
_LONGEST_COMMAND: Final = 200
_NOT_SET: Final = Markup('<span class="absent">not set</span>')
_PLAIN: Final = Markup('<span class="%s">%s</span>')
_FOLDED: Final = Markup('<details class="long %s"><summary>%s…</summary><span>%s</span></details>')

_LINK: Final = Markup('<a href="%s" rel="noreferrer">%s</a>')
_CODE: Final = Markup("<code>%s</code>")

_KEPT_TEXTS: Final = 1024
_LONGEST_KEPT: Final = 1000

_ADDRESS: Final = re.compile(r"(https?://[^\s<>\"]+[^\s<>\".,;:)])")
_STATES: Final = {"$absent": "absent", "$redacted": "redacted", "$failed": "failed"}


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
    """Render a page.

    Args:
        request: What it answers.
        template: Its name in `templates`.
        status: The HTTP status.
        values: What the template needs.
    """
    body = rendered(request, template, **values)
    headers = {
        "Content-Security-Policy": POLICY,
        "Cache-Control": "no-cache",
        "Vary": "Cookie",
    }
    return HTMLResponse(body, status_code=status, headers=headers)


def rendered(request: Request, template: str, **values: Any) -> str:
    """The text that a template gives."""
    visitor = getattr(request.state, "visitor", None)
    return (
        _environment()
        .get_template(template)
        .render(path=request.url.path, visitor=visitor, **values)
    )


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


def fitting(section: str, key: str, value: str) -> str | None:
    """Where the runs are listed that have a value; None where no filter can say so."""
    try:
        return address("/", filter=written(Comparison(Field(section, key), "=", value)))
    except FilterInvalid:
        return None


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
        "fitting": fitting,
        "impacts": IMPACTS,
        "short_id": short_id,
        "value": _value,
    }
    environment.filters |= {
        "age": age,
        "shown": shown,
        "marked": _marked,
        "moment_of": _moment_of,
        "said": _said,
        "sentence": as_sentence,
        "shown_text": _shown_text,
        "size": _size,
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
    """A command as lists say it: the whole of a long one is on the page of its run."""
    text = shown(shortened_command(text))
    return text if len(text) <= _LONGEST_COMMAND else f"{text[:_LONGEST_COMMAND]}…"


def _command_of(manifest: Manifest) -> str:
    return _command(command_line(manifest))


def _short_kept(make: Callable[[str], Markup]) -> Callable[[str], Markup]:
    """Remember what was made of short texts: what is said of settings is said on every page."""
    kept = lru_cache(maxsize=_KEPT_TEXTS)(make)
    return lambda text: (kept if len(text) <= _LONGEST_KEPT else make)(text)


@_short_kept
def _linked(text: str) -> Markup:
    """Text in which addresses of the web can be followed."""
    parts = _ADDRESS.split(shown(text))
    return Markup("").join(
        _LINK % (part, part) if number % 2 else part for number, part in enumerate(parts)
    )


def _patch_kind(line: str) -> str:
    if line.startswith(("+++", "---")):
        return "file"
    return {"+": "added", "-": "removed", "@": "place"}.get(line[:1], "same")


def _state_of(value: Any) -> str:
    """How a value looks: as one that is there, or as one of three kinds of nothing."""
    if isinstance(value, Mapping) and len(value) == 1:
        return _STATES.get(next(iter(value)), "value")
    return "value"


def _value(value: Any) -> Markup:
    """A value of a manifest; what is long is folded."""
    # In Python, where a macro takes ten times as long: a page has thousands of values.
    kind = _state_of(value)
    if kind == "absent":
        return _NOT_SET
    text = _said(value)
    if len(text) <= _LONGEST_VALUE:
        return _PLAIN % (kind, text)
    return _FOLDED % (kind, text[:_LONGEST_START], text)


def _took(run: Any) -> str:
    is_over = run.started_at and run.ended_at
    return duration(run.started_at, run.ended_at) if is_over else ""


def _moment_of(microseconds: int) -> str:
    try:
        return datetime.fromtimestamp(microseconds / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, OSError, ValueError):
        return str(microseconds)


@_short_kept
def _marked(text: str) -> Markup:
    """A sentence, harmless, with what stands between backticks as code."""
    parts = [escape(shown(part)) for part in text.split("`")]
    is_even = len(parts) % 2 == 1
    codes = [_CODE % p if n % 2 else p for n, p in enumerate(parts)]
    return Markup("").join(codes) if is_even else escape(shown(text))


def _shown_text(text: str) -> str:
    """Several lines, harmless."""
    return "\n".join(map(shown, text.splitlines()))


def _size(count: int) -> str:
    """Bytes as people say them."""
    size = float(count)
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _utc(moment: str) -> str:
    return moment.partition(".")[0].replace("T", " ").removesuffix("Z") + " UTC"
