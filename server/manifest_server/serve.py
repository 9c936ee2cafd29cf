"""Run the application under uvicorn."""

from __future__ import annotations

import gc
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from manifest_server.app import create_app, opened_store
from manifest_server.logs import LOGGING
from manifest_server.settings import ServerSettings
from manifest_server.writer import Writer

_SWITCH_SECONDS: Final = 0.0005


def serve(settings: ServerSettings, announce: Callable[[str], None]) -> None:
    """Serve until a signal ends it; requests that are under way are answered first.

    Args:
        settings: How to serve. The database must have this version's schema.
        announce: Told the address as soon as connections to it succeed.

    Raises:
        OSError: The address cannot be listened at.
    """
    # uvicorn raises the signal again when all is done: that is the end then, and no mishap.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    config = uvicorn.Config(
        partial(app_with_writer, settings),
        factory=True,
        workers=settings.workers,
        log_config=LOGGING,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=",".join(settings.trusted_proxies),
        ws="none",
        timeout_graceful_shutdown=settings.grace_seconds,
    )
    with _listen(settings) as listener:
        announce(_address(settings.host, listener))
        if settings.workers > 1:
            Multiprocess(config, sockets=[listener]).run()
        else:
            uvicorn.Server(config).run(sockets=[listener])


def prepared_app(settings: ServerSettings) -> FastAPI:
    """Make the application of a process that does nothing else."""
    app = create_app(settings)
    # A thread that computes, such as the one that commits, gives Python away only this long after
    # another has asked: a tenth of the default, or an answer waits for it several times.
    sys.setswitchinterval(_SWITCH_SECONDS)
    # What is there by now stays: the collector need not look at it whenever a page is made.
    gc.collect()
    gc.freeze()
    return app


def app_with_writer(settings: ServerSettings) -> FastAPI:
    """The same with a process beside it that commits, where there can be one."""
    app = prepared_app(settings)
    app.state.writer = Writer.start(partial(opened_store, settings))
    return app


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _listen(settings: ServerSettings) -> socket.socket:
    host = settings.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, settings.port), family=family, backlog=2048)


def _address(host: str, listener: socket.socket) -> str:
    named = f"[{host.strip('[]')}]" if ":" in host else host
    return f"http://{named}:{listener.getsockname()[1]}"
