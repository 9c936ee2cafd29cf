"""Bodies of requests: neither larger, nor slower, nor more tightly packed than is fair."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable
from typing import Final, Protocol

import zstandard
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from manifest_server.problems import Problem, answer

SLOWEST_BYTES_PER_SECOND: Final = 16 * 1024

_LARGEST_WINDOW: Final = 2**23
_CLOSE: Final = {"Connection": "close"}
"""The rest of such a body is not waited for."""


class Bodies:
    """Unpack bodies as they come, and refuse those that are beyond a bound.

    Both what is sent and what it unpacks to are bounded, so that a small body cannot become a large
    one; and both while they come, so that no more than that is ever held.
    """

    def __init__(
        self, app: ASGIApp, most_bytes: Callable[[str], int], *, slow_seconds: float
    ) -> None:
        self._app = app
        self._most_bytes = most_bytes
        self._slow_seconds = slow_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        most = self._most_bytes(scope["path"])
        try:
            _check_length(headers, most)
            unpacker = _unpacker(headers)
        except Problem as problem:
            await answer(problem, scope)(scope, receive, send)
            return
        if unpacker is not None:
            _hide_packing(scope)
        incoming = _Incoming(receive, unpacker, most, self._slow_seconds)
        await self._app(scope, incoming.receive, send)


class Unpacker(Protocol):
    """Takes a body apart as it comes."""

    def unpack(self, data: bytes, most: int) -> bytes:
        """What `data` unpacks to: at most one byte more than `most`."""
        ...

    def is_complete(self) -> bool:
        """Whether the end of the packed data was seen."""
        ...


class Gzip:
    """RFC 1952, one member."""

    def __init__(self) -> None:
        self._inflating = zlib.decompressobj(wbits=31)

    def unpack(self, data: bytes, most: int) -> bytes:
        """What `data` unpacks to: at most one byte more than `most`."""
        unpacked = self._inflating.decompress(data, most + 1)
        if self._inflating.unused_data:
            raise _not_packed("gzip")
        return unpacked

    def is_complete(self) -> bool:
        """Whether the end of the packed data was seen."""
        return self._inflating.eof


class Zstd:
    """RFC 8878, one frame, whose window is bounded too."""

    _PORTION = 256

    def __init__(self) -> None:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
        self._inflating = decompressor.decompressobj()

    def unpack(self, data: bytes, most: int) -> bytes:
        """What `data` unpacks to: at most 8 MiB more than `most`."""
        unpacked = bytearray()
        # There is no bound to ask for, but a block has 4 bytes at least, and gives 128 KiB at most.
        for start in range(0, len(data), self._PORTION):
            if self._inflating.eof:
                raise _not_packed("zstd")
            unpacked += self._inflating.decompress(data[start : start + self._PORTION])
            if len(unpacked) > most:
                break
        if self._inflating.unused_data:
            raise _not_packed("zstd")
        return bytes(unpacked)

    def is_complete(self) -> bool:
        """Whether the end of the packed data was seen."""
        return self._inflating.eof


class _Incoming:
    """A body on its way in."""

    def __init__(
        self, receive: Receive, unpacker: Unpacker | None, most: int, slow_seconds: float
    ) -> None:
        self._receive = receive
        self._unpacker = unpacker
        self._most = most
        self._slow_seconds = slow_seconds
        self._began = time.monotonic()
        self._sent = self._unpacked = 0
        self._is_over = False

    async def receive(self) -> Message:
        if self._is_over:
            return await self._receive()  # tells of the client's leaving, whenever that is
        message = await self._in_time()
        if message["type"] != "http.request":
            return message
        body = message.get("body", b"")
        self._is_over = not message.get("more_body", False)
        self._sent += len(body)
        if self._sent > self._most:
            raise _too_large(self._most)
        if self._unpacker is None:
            return message
        return {**message, "body": self._unpack(self._unpacker, body)}

    async def _in_time(self) -> Message:
        allowed = self._slow_seconds + self._sent / SLOWEST_BYTES_PER_SECOND
        try:
            async with asyncio.timeout(self._began + allowed - time.monotonic()):
                return await self._receive()
        except TimeoutError:
            detail = f"the body came slower than {SLOWEST_BYTES_PER_SECOND} bytes a second"
            raise Problem(408, "body-too-slow", detail, headers=_CLOSE) from None

    def _unpack(self, unpacker: Unpacker, body: bytes) -> bytes:
        try:
            unpacked = unpacker.unpack(body, self._most - self._unpacked) if body else b""
        except (zlib.error, zstandard.ZstdError) as error:
            raise _not_packed(type(unpacker).__name__.lower()) from error
        self._unpacked += len(unpacked)
        if self._unpacked > self._most:
            raise _too_large(self._most)
        if self._is_over and self._sent and not unpacker.is_complete():
            raise _not_packed(type(unpacker).__name__.lower())
        return unpacked


_UNPACKERS: Final[dict[str, Callable[[], Unpacker]]] = {"gzip": Gzip, "zstd": Zstd}


def _unpacker(headers: Headers) -> Unpacker | None:
    said = ",".join(headers.getlist("content-encoding")).strip().lower()
    if said in ("", "identity"):
        return None
    if said not in _UNPACKERS:
        detail = f"send the body as it is, or in one of: {', '.join(_UNPACKERS)}"
        raise Problem(
            415, "encoding-unknown", detail, headers=_CLOSE | {"Accept-Encoding": "gzip, zstd"}
        )
    return _UNPACKERS[said]()


def _check_length(headers: Headers, most: int) -> None:
    said = headers.get("content-length", "0")
    if not (said.isascii() and said.isdigit()) or len(said) > 18:
        raise Problem(400, "length-invalid", "Content-Length is no number", headers=_CLOSE)
    if int(said) > most:
        raise _too_large(most)


def _hide_packing(scope: Scope) -> None:
    """What follows sees the body as if it had been sent unpacked."""
    hidden = (b"content-encoding", b"content-length")
    scope["headers"] = [each for each in scope["headers"] if each[0] not in hidden]


def _too_large(most: int) -> Problem:
    detail = f"the body may have {most} bytes, unpacked, and has more"
    return Problem(413, "body-too-large", detail, headers=_CLOSE)


def _not_packed(encoding: str) -> Problem:
    detail = f"the body is not what Content-Encoding says: it cannot be unpacked as {encoding}"
    return Problem(400, "body-damaged", detail, headers=_CLOSE)
