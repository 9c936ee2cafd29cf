"""`manifest sync` and `manifest pull`: runs on their way to a service, and back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manifest_client.cli.arguments import RunArgument, examples

if TYPE_CHECKING:
    from manifest.rundir import RunDirectory
    from manifest_client.connection import Client
    from manifest_client.settings import Settings


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

    base = find_base() if folder is None else _base_of(folder)
    with connected() as client:
        runs = run_directories(base)[::-1]  # the oldest first: a replay comes after its original
        waiting = [
            run
            for run in runs
            if run.has_begun() and (is_whole or not is_delivered(run, client.url))
        ]
        if is_whole:
            for run in waiting:
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
        BadParameter: None is.
    """
    from manifest_client.connection import Client
    from manifest_client.settings import load_settings

    settings = load_settings()
    if settings.url is None:
        raise typer.BadParameter("no service is set up: `manifest login URL`, or set MANIFEST_URL")
    if settings.mode != "online":
        raise typer.BadParameter(f"the mode is '{settings.mode}': nothing is sent or fetched")
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
        await_delivery(run, settings.timeout)


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
    from manifest_client.problems import ServiceRefused, ServiceUnreachable
    from manifest_client.rendering.terminal import out, styled

    console = out()
    failed = 0
    for number, run in enumerate(waiting, 1):
        try:
            is_over = deliver(run, client)
        except ServiceUnreachable:
            warn(f"{number - 1} of {len(waiting)} runs were sent; call it again for the others")
            raise
        except (ManifestError, OSError) as error:
            if isinstance(error, ServiceRefused) and error.is_about_the_token:
                raise
            failed += 1
            warn(f"run {run.id} is not sent: {error}")
            continue
        said = "sent" if is_over else "sent as it is by now; it goes on"
        count = f"{number:>{len(str(len(waiting)))}}/{len(waiting)}"
        console.print(styled((count, "quiet"), f" {run.id} ", (said, "quiet")), soft_wrap=True)
    if not waiting:
        console.print(styled("everything is delivered"))
    return failed
