"""What a request is handed: the store, the settings, its caller, its body."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, BinaryIO, Final, cast

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool

from manifest.errors import RunNotFound
from manifest.models import Manifest, Scope
from manifest_server.callers import OWNER, Caller
from manifest_server.intake import Intake as RunIntake
from manifest_server.metrics import Metrics as Counters
from manifest_server.problems import Problem
from manifest_server.rates import Rates
from manifest_server.settings import ServerSettings
from manifest_server.sqlstore import SqlStore

_LONGEST_TOKEN: Final = 200
_BYTES_IN_MEMORY: Final = 2**20
_ASK_FOR_TOKEN: Final = {"WWW-Authenticate": "Bearer"}


# Those that only look something up are coroutines: FastAPI sends every other one to a thread.


async def settings_of(request: Request) -> ServerSettings:
    """The settings of this service."""
    settings: ServerSettings = request.app.state.settings
    return settings


async def store_of(request: Request) -> SqlStore:
    """The store of this service."""
    store: SqlStore = request.app.state.store
    return store


async def body_of(request: Request) -> bytes:
    """The body as it was sent, uncompressed; parsed once, by whoever knows its form."""
    return await request.body()


@dataclass(frozen=True, slots=True)
class Received:
    """A body that may be large: on disk, and its digest made while it came."""

    file: BinaryIO
    digest: str
    size: int


async def received_blob(request: Request) -> AsyncIterator[Received]:
    """A blob as it was sent, with what is large on disk."""
    digest, size = hashlib.sha256(), 0
    with tempfile.SpooledTemporaryFile(max_size=_BYTES_IN_MEMORY) as file:
        async for chunk in request.stream():
            digest.update(chunk)
            size += len(chunk)
            file.write(chunk)
        file.seek(0)
        yield Received(cast("BinaryIO", file), f"sha256:{digest.hexdigest()}", size)


def visible(store: SqlStore, caller: Caller, run_id: str) -> Manifest:
    """A run, if the caller may know of it.

    Raises:
        RunNotFound: There is none, or it is in a project that is not the caller's.
    """
    return all_visible(store, caller, [run_id])[0]


def all_visible(store: SqlStore, caller: Caller, run_ids: Sequence[str]) -> list[Manifest]:
    """Several runs, if the caller may know of all of them.

    Raises:
        RunNotFound: There is no such run, or one is in a project that is not the caller's.
    """
    found = store.get_runs(run_ids)
    for manifest in found:
        if caller.project is not None and manifest.project != caller.project:
            raise RunNotFound(manifest.id, store.location)
    return found


def check_visible(store: SqlStore, caller: Caller, run_id: str) -> None:
    """Make sure that the caller may know of a run, without reading it.

    Raises:
        RunNotFound: There is none, or it is in a project that is not the caller's.
    """
    project = store.project_of(run_id)
    if caller.project is not None and project != caller.project:
        raise RunNotFound(run_id, store.location)


def caller_with(scope: Scope) -> Callable[[Request], Awaitable[Caller]]:
    """Ask for a caller that has a scope."""

    async def caller_with_scope(request: Request) -> Caller:
        caller = await caller_of(request)
        caller.check_scope(scope)
        return caller

    return caller_with_scope


async def caller_of(request: Request) -> Caller:
    """Whoever asks; where tokens are asked for, only with one, and not more than is fair."""
    return await caller_by(request, _bearer)


async def caller_by(request: Request, secret_of: Callable[[Request], str]) -> Caller:
    """The same, with the token that is found in a request."""
    settings: ServerSettings = request.app.state.settings
    if settings.auth == "none":
        return OWNER
    caller = await _of_token(request, secret_of(request))
    request.state.caller = caller.name
    _check_rate(request, caller.token_id or "")
    return caller


def token_missing(detail: str) -> Problem:
    """The answer to whoever shows no token."""
    return Problem(401, "token-missing", detail, headers=_ASK_FOR_TOKEN)


def _bearer(request: Request) -> str:
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    if not secret:
        raise token_missing("send a token, as in `Authorization: Bearer mft_…`")
    return secret.strip() if kind.lower() == "bearer" else ""


async def _of_token(request: Request, secret: str) -> Caller:
    is_possible = len(secret) <= _LONGEST_TOKEN
    store: SqlStore = request.app.state.store
    token = await run_in_threadpool(store.authenticate, secret) if is_possible else None
    if token is None:
        _check_rate(request, request.client.host if request.client else "")
        detail = "this token is unknown, has expired or was revoked; ask an administrator for one"
        raise Problem(401, "token-invalid", detail, headers=_ASK_FOR_TOKEN)
    return Caller.of(token)


def _check_rate(request: Request, caller: str) -> None:
    rates: Rates = request.app.state.rates
    seconds = rates.wait_seconds(caller)
    if seconds > 0:
        detail = f"wait {seconds:.2f} seconds, and ask for less at a time"
        retry = {"Retry-After": str(math.ceil(seconds))}
        raise Problem(429, "too-many-requests", detail, headers=retry)


async def intake_of(request: Request) -> RunIntake:
    """What takes runs into the store of this service."""
    intake: RunIntake = request.app.state.intake
    return intake


async def metrics_of(request: Request) -> Counters:
    """The counters of this service."""
    metrics: Counters = request.app.state.metrics
    return metrics


Settings = Annotated[ServerSettings, Depends(settings_of)]
Store = Annotated[SqlStore, Depends(store_of)]
Intake = Annotated[RunIntake, Depends(intake_of)]
Metrics = Annotated[Counters, Depends(metrics_of)]
Body = Annotated[bytes, Depends(body_of)]
ReceivedBlob = Annotated[Received, Depends(received_blob)]
Anyone = Annotated[Caller, Depends(caller_of)]
Reader = Annotated[Caller, Depends(caller_with("read"))]
Writer = Annotated[Caller, Depends(caller_with("write"))]
Admin = Annotated[Caller, Depends(caller_with("admin"))]
