"""What a service answers when something is wrong, as errors of this side.

A service describes a problem by a stable code (RFC 9457). Which error that is stands in a table
here: nothing that a service sends is ever looked up, imported or called.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from manifest import errors
from manifest.errors import ManifestError, StoreUnusable

_LONGEST_DETAIL: Final = 2000


class ServiceUnreachable(StoreUnusable):
    """No answer, or none that can be used, however often one asks."""


class AnswerUnusable(ServiceUnreachable):
    """Whoever answers is no service of Manifest, or of another version."""

    def __init__(self, url: str, found: str) -> None:
        super().__init__(
            f"{url} answers, but not as a service of Manifest does: {found[:_LONGEST_DETAIL]}. "
            "Is the address right? `manifest config` says where it comes from."
        )


class ServiceRefused(ManifestError):
    """The service does not do what it was asked."""

    def __init__(self, url: str, status: int, code: str, detail: str) -> None:
        self.status = status
        self.code = code
        self.detail = detail
        hint = _HINTS.get(status, "")
        super().__init__(f"{url} refuses: {detail[:_LONGEST_DETAIL].rstrip('.')}.{hint}")

    @property
    def is_about_the_token(self) -> bool:
        """Whether another token would help."""
        return self.status in (401, 403)


_HINTS: Final[Mapping[int, str]] = {
    401: " `manifest login` asks for a token and keeps it.",
    403: " `manifest whoami` says what your token may.",
}

_KNOWN: Final[Mapping[str, type[ManifestError]]] = {
    "".join(f"-{char.lower()}" if char.isupper() else char for char in name).lstrip("-"): found
    for name in errors.__all__
    if (found := getattr(errors, name)) is not ManifestError
}
"""The errors of the core by the code that stands for them."""


def error_of(
    url: str, status: int, body: bytes, *, reference: str = "", filter_text: str = ""
) -> ManifestError:
    """The error that an answer stands for.

    Args:
        url: The service.
        status: Of the answer.
        body: Of the answer: a problem document, if it is of a service of Manifest.
        reference: The run that was asked for.
        filter_text: The filter that was sent.
    """
    problem = _problem(body)
    if problem is None:
        if status >= 500:
            return ServiceUnreachable(f"{url} has a fault: it answers with status {status}.")
        return AnswerUnusable(url, f"with status {status} and no problem document")
    code, detail = str(problem.get("code", "")), str(problem.get("detail", ""))
    if status >= 500:
        # Its database is away, its disk is full: whatever it is, it may be over tomorrow.
        return ServiceUnreachable(f"{url} has a fault: {detail[:_LONGEST_DETAIL].rstrip('.')}.")
    kind = _KNOWN.get(code)
    if kind is errors.RunNotFound:
        return errors.RunNotFound(reference, url)
    if kind is errors.FilterInvalid and filter_text:
        return _filter_invalid(filter_text, problem)
    if kind is not None:
        return _said(kind, detail)
    return ServiceRefused(url, status, code, detail)


def _problem(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("code"), str) else None


def _filter_invalid(text: str, problem: Mapping[str, Any]) -> ManifestError:
    faults = problem.get("errors")
    first = faults[0] if isinstance(faults, list) and faults else {}
    if not isinstance(first, dict) or not isinstance(first.get("position"), int):
        return _said(errors.FilterInvalid, str(problem.get("detail")))
    position = min(max(0, first["position"]), len(text))
    return errors.FilterInvalid(text, position, str(first.get("expected"))[:_LONGEST_DETAIL])


def _said(kind: type[ManifestError], detail: str) -> ManifestError:
    # What the other side said is whole; the parts it was made of stayed there.
    error = kind.__new__(kind)
    Exception.__init__(error, detail[:_LONGEST_DETAIL])
    return error
