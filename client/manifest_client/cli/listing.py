"""`manifest ls` and `manifest show`: what was recorded."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from manifest_client.cli.arguments import AllOption, JsonOption, RunArgument, examples

if TYPE_CHECKING:
    from manifest.models import Manifest, RunSummary, Verdict
    from manifest.stores import Store


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        "ls",
        epilog=examples(
            "manifest ls",
            "manifest ls --status failed",
            "manifest ls 'config.lr > 0.1 and packages.torch like \"2.13%\"'",
            "manifest ls --remote --json",
        ),
    )(list_runs)
    app.command(
        "show",
        epilog=examples(
            "manifest show @latest",
            "manifest show 0199c3f2 --section settings",
            "manifest show @prev --json",
        ),
    )(show)


RemoteOption = Annotated[bool, typer.Option("--remote", help="Ask the service, not this folder.")]


def list_runs(
    wanted: Annotated[
        str | None,
        typer.Argument(
            metavar="FILTER", help="Which runs, as in 'config.lr > 0.1'.", show_default=False
        ),
    ] = None,
    *,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many, the newest first.")
    ] = 20,
    status: Annotated[
        str | None, typer.Option(help="Only running, finished, failed or crashed runs.")
    ] = None,
    project: Annotated[str | None, typer.Option(help="Only runs of this project.")] = None,
    is_remote: RemoteOption = False,
    as_json: JsonOption = False,
) -> None:
    """List runs, the newest first."""
    from manifest.filtering import parse_filter
    from manifest.rundir import find_base
    from manifest_client.cli.delivering import connected
    from manifest_client.cli.local import is_anything_kept, newest_runs, opened

    _check_status(status)
    condition = None if wanted is None else parse_filter(wanted)
    is_filtered = status is not None or project is not None or condition is not None
    if is_remote:
        from manifest_client.httpstore import HttpStore

        with connected() as client:
            found = HttpStore(client).list_runs(
                limit=limit + 1, status=status, project=project, wanted=condition
            )
        _print_runs(found, limit, client.url, is_filtered=is_filtered, as_json=as_json)
        return
    base = find_base()
    if not is_anything_kept(base):
        _print_runs([], limit, str(base), is_filtered=False, as_json=as_json)
        return
    if is_filtered:
        with opened(base) as local:
            found = local.store.list_runs(
                limit=limit + 1, status=status, project=project, wanted=condition
            )
    else:
        found = newest_runs(base, limit + 1)
    _print_runs(found, limit, str(base), is_filtered=is_filtered, as_json=as_json)


def show(
    run: RunArgument,
    *,
    section: Annotated[
        str | None, typer.Option("--section", "-s", help="Only this section, in full.")
    ] = None,
    is_whole: AllOption = False,
    is_remote: RemoteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show a run: what came of it, then what was recorded."""
    manifest, verdict, replays = _remote_run(run) if is_remote else _local_run(run)
    if section is not None:
        _print_section(manifest, section, as_json=as_json)
    elif as_json:
        _print_run_as_json(manifest, verdict, replays)
    else:
        _print_run(manifest, verdict, replays, is_whole=is_whole)


def _local_run(reference: str) -> tuple[Manifest, Verdict | None, list[RunSummary]]:
    from manifest.errors import RunNotFound
    from manifest.rundir import find_base
    from manifest_client.cli.local import is_anything_kept, opened, service_for
    from manifest_client.references import resolve

    base = find_base()
    if is_anything_kept(base):
        with opened(base) as local, suppress(RunNotFound):
            return _read(local.store, resolve(reference, local.store, str(base)))
    with service_for(reference) as client:
        if client is None:
            raise RunNotFound(reference, str(base))
    return _remote_run(reference)


def _remote_run(reference: str) -> tuple[Manifest, Verdict | None, list[RunSummary]]:
    from manifest_client.cli.delivering import connected
    from manifest_client.httpstore import HttpStore
    from manifest_client.pulling import find_remote

    with connected() as client:
        return _read(HttpStore(client), find_remote(reference, client))


def _read(store: Store, run_id: str) -> tuple[Manifest, Verdict | None, list[RunSummary]]:
    return store.get_run(run_id), store.get_verdict(run_id), store.list_replays(run_id)


def _check_status(status: str | None) -> None:
    from typing import get_args

    from manifest.models import Status

    if status is not None and status not in get_args(Status):
        raise typer.BadParameter(
            f"expected one of {', '.join(get_args(Status))}, found {status!r}",
            param_hint="--status",
        )


def _print_runs(
    found: list[RunSummary], limit: int, where: str, *, is_filtered: bool, as_json: bool
) -> None:
    from manifest_client.rendering.runs import no_runs, runs_table
    from manifest_client.rendering.terminal import out, print_json, styled

    if as_json:
        print_json([run.model_dump(mode="json") for run in found[:limit]])
        return
    console = out()
    if not found:
        nothing = styled("No run fits. Leave the filter away to see all.")
        console.print(nothing if is_filtered else no_runs(where), soft_wrap=True)
        return
    console.print(runs_table(found[:limit]))
    if len(found) > limit:
        console.print(styled((f"… and older ones: manifest ls -n {limit * 5}", "quiet")))


def _print_section(manifest: Manifest, name: str, *, as_json: bool) -> None:
    from manifest.describing import shown
    from manifest_client.rendering.runs import section as section_text
    from manifest_client.rendering.terminal import out, print_json

    values = manifest.sections.get(name)
    if values is None:
        there = shown(", ".join(sorted(manifest.sections))) or "none"
        raise typer.BadParameter(
            f"run {manifest.id} has no section {name!r}. It has: {there}", param_hint="--section"
        )
    if as_json:
        print_json(values)
        return
    console = out()
    console.print(section_text(name, values, width=console.width, is_whole=True), soft_wrap=True)


def _print_run_as_json(
    manifest: Manifest, verdict: Verdict | None, replays: list[RunSummary]
) -> None:
    from manifest.doubts import doubts
    from manifest_client.rendering.terminal import print_json

    print_json(
        {
            "manifest": manifest.model_dump(mode="json", by_alias=True, exclude_unset=True),
            "verdict": None if verdict is None else verdict.model_dump(mode="json"),
            "replays": [replay.model_dump(mode="json") for replay in replays],
            "doubts": [each.model_dump(mode="json") for each in doubts(manifest)],
        }
    )


def _print_run(
    manifest: Manifest, verdict: Verdict | None, replays: list[RunSummary], *, is_whole: bool
) -> None:
    from manifest_client.rendering.runs import run_page
    from manifest_client.rendering.terminal import out

    console = out()
    page = run_page(manifest, verdict, replays, width=console.width, is_whole=is_whole)
    console.print(page, soft_wrap=True)
