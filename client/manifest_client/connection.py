"""Requests to a service: repeated where that is safe, compressed where it is welcome.

Everything asked of a service is idempotent, so a request whose answer was lost is simply sent
again. Waiting times are spread by bytes of the operating system: no generator that a program could
see is drawn from.
"""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx2

from manifest_client.problems import AnswerUnusable, ServiceUnreachable, error_of

API: Final = "/api/v1"

_TIMEOUT: Final = httpx2.Timeout(30.0, connect=5.0)
_ATTEMPTS: Final = 5
_FIRST_PAUSE_SECONDS: Final = 0.2
_LONGEST_PAUSE_SECONDS: Final = 15.0
_PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses that may be others in a moment."""
_SMALLEST_COMPRESSED_BYTES: Final = 1024
_PIECE_BYTES: Final = 2**20

Body = bytes | Callable[[], Iterable[bytes]]
"""Bytes, or what gives them in pieces, anew for each attempt."""


class Client:
    """Sends requests to one service.

    Args:
        url: The address of the service, in the form that settings have it.
        token: Shown with every request.
        http: What carries requests, instead of connections of its own.
        attempts: How often one request is sent at most.
        pause: Waits so many seconds between two attempts.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        http: httpx2.Client | None = None,
        attempts: int = _ATTEMPTS,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url.rstrip("/")
        self._http = http or httpx2.Client(timeout=_TIMEOUT)
        self._attempts = attempts
        self._pause = pause
        self._headers = {"User-Agent": f"manifest/{version('manifest-replay')}"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._takes_gzip = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        accepted: tuple[int, ...] = (),
        reference: str = "",
    ) -> httpx2.Response:
        """Send a request until it is answered.

        Args:
            method: As in HTTP; the request must be one that may be repeated.
            path: Below the address of the service.
            params: The query.
            body: What is sent: JSON, unless `headers` say otherwise.
            headers: Further ones.
            accepted: Statuses of errors that the caller wants to see itself.
            reference: The run that is asked for, for messages.

        Raises:
            ServiceUnreachable: No answer came, however often it was sent.
            ManifestError: The service answered with this error.
        """
        wanted = {name: each for name, each in (params or {}).items() if each is not None}
        for attempt in range(1, self._attempts + 1):
            answer: httpx2.Response | None = None
            try:
                answer = self._send(method, path, wanted, body, headers or {})
            except (httpx2.RequestError, httpx2.InvalidURL) as error:
                if attempt == self._attempts or not _may_pass(error):
                    raise self._unreachable(error) from error
            if answer is not None:
                if answer.is_success or answer.status_code in accepted:
                    return answer
                if answer.status_code not in _PASSING or attempt == self._attempts:
                    raise self._error(answer, reference, wanted)
            self._pause(_pause_seconds(attempt, answer))
        raise AssertionError("the last attempt returns or raises")  # pragma: no cover

    def json(self, method: str, path: str, **options: Any) -> Any:
        """The same, for an answer in JSON.

        Raises:
            AnswerUnusable: It is none.
        """
        answer = self.request(method, path, **options)
        try:
            return answer.json()
        except (ValueError, RecursionError) as error:
            raise AnswerUnusable(self.url, f"expected JSON, found {answer.text[:80]!r}") from error

    def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any],
        body: Body | None,
        headers: Mapping[str, str],
    ) -> httpx2.Response:
        sent = {**self._headers, **headers}
        content: bytes | Iterable[bytes] | None = body() if callable(body) else body
        if content is not None:
            sent.setdefault("Content-Type", "application/json")
        is_compressed = (
            self._takes_gzip
            and isinstance(content, bytes)
            and len(content) >= _SMALLEST_COMPRESSED_BYTES
        )
        if is_compressed and isinstance(content, bytes):
            content = gzip.compress(content, 5, mtime=0)
            sent["Content-Encoding"] = "gzip"
        answer = self._http.request(
            method, self.url + path, params=params, content=content, headers=sent
        )
        if is_compressed and answer.status_code == 415:
            self._takes_gzip = False
            return self._send(method, path, params, body, headers)
        # RFC 7694: which encodings of a request are understood stands in an answer.
        self._takes_gzip |= "gzip" in answer.headers.get("Accept-Encoding", "")
        return answer

    def _unreachable(self, error: Exception) -> ServiceUnreachable:
        said = str(error) or type(error).__name__
        return ServiceUnreachable(
            f"the service {self.url} cannot be reached: {said}. What was recorded is kept here; "
            "`manifest sync` sends it once the service is there."
        )

    def _error(
        self, answer: httpx2.Response, reference: str, params: Mapping[str, Any]
    ) -> Exception:
        if answer.is_redirect:
            # Never followed: the token would go along.
            where = answer.headers.get("Location", "elsewhere")
            return AnswerUnusable(self.url, f"it points to {where[:200]}")
        return error_of(
            self.url,
            answer.status_code,
            answer.content,
            reference=reference,
            filter_text=str(params.get("filter", "")),
        )


def identity(url: str, token: str | None) -> dict[str, Any]:
    """As whom a service knows us: our name, and what we may.

    Raises:
        ServiceUnreachable: It does not answer, or not as this service does.
        ServiceRefused: It knows no such token.
    """
    with Client(url, token=token, attempts=2) as client:
        found = client.json("GET", f"{API}/whoami")
    is_identity = isinstance(found, dict) and isinstance(found.get("scopes"), list)
    if not is_identity or not isinstance(found.get("name"), str):
        raise AnswerUnusable(url, "it does not say who asks")
    known: dict[str, Any] = found
    return known


def pieces(path: Path) -> Callable[[], Iterable[bytes]]:
    """The bytes of a file, as a body that can be sent again."""

    def read() -> Iterable[bytes]:
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece

    return read


def _may_pass(error: Exception) -> bool:
    # An address that cannot be, or a certificate that does not fit, will be so in a second, too.
    if isinstance(error, (httpx2.InvalidURL, httpx2.UnsupportedProtocol)):
        return False
    return "CERTIFICATE_VERIFY_FAILED" not in str(error)


def _pause_seconds(attempt: int, answer: httpx2.Response | None) -> float:
    longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0 ** (attempt - 1))
    spread = longest * (0.5 + int.from_bytes(os.urandom(2), "big") / 2**17)
    asked = 0.0
    if answer is not None:
        with suppress(ValueError):  # a date is possible, and too rare to be read
            asked = float(answer.headers.get("Retry-After", "0"))
    return max(spread, min(asked, _LONGEST_PAUSE_SECONDS)) if asked > 0 else spread
