"""`manifest sync` and `manifest pull`: runs on their way to a service, and back."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeGuard

import typer

from manifest_client.cli.arguments import RunArgument, examples

if TYPE_CHECKING:
    from manifest.rundir import RunDirectory
    from manifest_client.connection import Client
    from manifest_client.settings import Settings


_AT_ONCE: Final = 4
"""Runs that are sent side by side: most of the time of one is spent in waiting for answers."""


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        "sync",
        epilog=examples("manifest sync", "manifest sync --all", "manifest sync /data/.manifest"),
    )(sync)
    app.command("pull", epilog=examples("manifest pull 0199c3f2"))(pull)


def sync(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="The folder that keeps runs.", show_default=False),
    ] = None,
    *,
    is_whole: Annotated[
        bool, typer.Option("--all", help="Also what was acknowledged before.")
    ] = False,
) -> None:
    """Send every run that the service has not acknowledged."""
    from manifest.delivered import FILE, is_delivered
    from manifest.rundir import find_base, run_directories
    from manifest_client.delivery import is_there

    base = find_base() if folder is None else _base_of(folder)
    with connected() as client:
        runs = run_directories(base)[::-1]  # the oldest first: a replay comes after its original
        waiting = [
            run for run in runs if is_there(run) and (is_whole or not is_delivered(run, client.url))
        ]
        if is_whole:
            for run in waiting:
                with suppress(OSError):  # then sending it will fail, too, and say why
                    (run.path / FILE).unlink(missing_ok=True)
        failed = _send_all(waiting, client)
    if failed:
        raise typer.Exit(2)


def pull(run: RunArgument) -> None:
    """Fetch a run that only the service has, as a run directory."""
    from manifest.rundir import find_base
    from manifest_client.pulling import find_remote
    from manifest_client.pulling import pull as pull_run
    from manifest_client.rendering.terminal import out, styled

    with connected() as client:
        pulled = pull_run(find_remote(run, client), client, find_base())
    out().print(styled(str(pulled.path)), soft_wrap=True)


def connected() -> Client:
    """A client of the service that is set up.

    Raises:
        ManifestError: None is, or it is not to be asked.
    """
    from manifest.errors import ManifestError
    from manifest_client.connection import Client
    from manifest_client.settings import load_settings

    settings = load_settings()
    if settings.url is None:
        raise ManifestError("no service is set up: `manifest login URL`, or set MANIFEST_URL")
    if settings.mode != "online":
        raise ManifestError(f"the mode is '{settings.mode}': nothing is sent or fetched")
    return Client(settings.url, token=settings.token)


def begin_delivery(base: Path) -> Settings | None:
    """Have what is recorded into `base` delivered, if a service is set up."""
    from manifest.errors import ManifestError
    from manifest.shipping import start_shipper
    from manifest_client.cli.local import warn
    from manifest_client.settings import load_settings

    try:
        settings = load_settings()
    except ManifestError as error:
        warn(f"{error} Runs are kept here and not delivered.")
        return None
    if settings.is_delivering:
        base.mkdir(parents=True, exist_ok=True)
        if not start_shipper(base, os.environ):
            warn("the process that delivers runs cannot be started")
    return settings


def end_delivery(run: RunDirectory, settings: Settings | None) -> None:
    """Wait for the acknowledgement, so long as the settings say."""
    from manifest.shipping import await_delivery

    if settings is not None and settings.is_delivering:
        await_delivery([run], settings.timeout)


def _base_of(folder: Path) -> Path:
    from manifest.rundir import FOLDER

    chosen = folder.expanduser().absolute()
    inner = chosen / FOLDER
    found = inner if inner.is_dir() else chosen
    if not (found / "runs").is_dir():
        raise typer.BadParameter(f"no runs are kept in {folder}", param_hint="DIR")
    return found


def _send_all(waiting: list[RunDirectory], client: Client) -> int:
    from manifest.errors import ManifestError
    from manifest_client.cli.local import warn
    from manifest_client.delivery import deliver
    from manifest_client.rendering.terminal import out, styled

    def delivered(run: RunDirectory) -> bool | Exception:
        try:
            return deliver(run, client)
        except (ManifestError, OSError) as error:
            return error

    console = out()
    failed = 0
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        results = pool.map(delivered, waiting)
        for number, (run, result) in enumerate(zip(waiting, results, strict=True), 1):
            if _concerns_all(result):
                warn(f"not all of {len(waiting)} runs were sent; call it again for the others")
                raise result
            if isinstance(result, Exception):
                failed += 1
                warn(f"run {run.id} is not sent: {result}")
                continue
            said = "sent" if result else "sent as it is by now; it goes on"
            count = f"{number:>{len(str(len(waiting)))}}/{len(waiting)}"
            console.print(styled((count, "quiet"), f" {run.id} ", (said, "quiet")), soft_wrap=True)
    finally:
        pool.shutdown(cancel_futures=True)
    if not waiting:
        console.print(styled("everything is delivered"))
    return failed


def _concerns_all(result: bool | Exception) -> TypeGuard[Exception]:
    """Whether other runs will fare no better."""
    from manifest_client.problems import ServiceRefused, ServiceUnreachable

    is_refused = isinstance(result, ServiceRefused) and result.is_about_the_token
    return is_refused or isinstance(result, ServiceUnreachable)
