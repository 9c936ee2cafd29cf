"""`manifest diff` and `manifest verify`: two runs side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from manifest_client.cli.arguments import (
    AfterArgument,
    AllOption,
    AtolOption,
    BeforeArgument,
    JsonOption,
    OptionalAfterArgument,
    RtolOption,
    examples,
    tolerance,
)

if TYPE_CHECKING:
    from manifest.models import Diff, Manifest, TrailComparison
    from manifest.rundir import RunDirectory
    from manifest_client.cli.local import Local


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        "diff",
        epilog=examples(
            "manifest diff @prev @latest",
            "manifest diff 0199c3f2 0199c4a0 --impact possible",
            "manifest diff @prev @latest --exit-code --json",
            "manifest diff @latest --ranks",
        ),
    )(diff)
    app.command(
        "verify",
        epilog=examples(
            "manifest verify @prev @latest",
            "manifest verify 0199c3f2 0199c4a0 --json",
            "manifest verify @prev @latest --rtol 1e-5",
        ),
    )(verify)


def diff(
    before: BeforeArgument,
    after: OptionalAfterArgument = None,
    *,
    impact: Annotated[
        str | None,
        typer.Option(help="Only certain, possible, unknown, performance or informational."),
    ] = None,
    section: Annotated[
        str | None, typer.Option("--section", "-s", help="Only this section.")
    ] = None,
    is_whole: AllOption = False,
    are_ranks: Annotated[
        bool, typer.Option("--ranks", help="The ranks of one run, each with its first.")
    ] = False,
    as_json: JsonOption = False,
    has_exit_code: Annotated[
        bool, typer.Option("--exit-code", help="End with 1 if anything differs.")
    ] = False,
) -> None:
    """Show where two runs differ, and what of it can change results."""
    from manifest_client.cli.local import local_runs

    _check_impact(impact)
    _check_operands(after, are_ranks=are_ranks)
    if after is None:
        count = _diff_ranks(before, section, impact, is_whole=is_whole, as_json=as_json)
        raise typer.Exit(1 if has_exit_code and count else 0)
    with local_runs(before) as local:
        runs = local.store.get_run(local.find(before)), local.store.get_run(local.find(after))
        found = _differences(local, runs)
        comparison = _compared_trails(local, runs)
    chosen = [
        item
        for item in found.differences
        if (impact is None or item.impact == impact)
        and (section is None or item.section == section)
    ]
    visible = found.model_copy(update={"differences": tuple(chosen)})
    if as_json:
        _print_json(visible, comparison)
    else:
        _print(visible, runs, comparison, is_whole=is_whole or impact is not None)
    raise typer.Exit(1 if has_exit_code and chosen else 0)


def verify(
    before: BeforeArgument,
    after: AfterArgument,
    *,
    rtol: RtolOption = None,
    atol: AtolOption = None,
    is_whole: AllOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare two recorded runs step by step, without running anything."""
    from manifest.replaying import judge
    from manifest_client.cli.local import local_runs
    from manifest_client.cli.replays import EXIT_CODES, print_verdict

    with local_runs(before) as local:
        runs = local.directory(before), local.directory(after)
    verdict = judge(*runs, tolerance=tolerance(rtol, atol))
    print_verdict(verdict, roles=("before", "after"), is_whole=is_whole, as_json=as_json)
    raise typer.Exit(EXIT_CODES[verdict.outcome])


def _check_operands(after: str | None, *, are_ranks: bool) -> None:
    if are_ranks and after is not None:
        raise typer.BadParameter(
            "it compares the ranks of one run: leave the second run away", param_hint="--ranks"
        )
    if not are_ranks and after is None:
        raise typer.BadParameter(
            "expected a second run to compare with, or --ranks to compare the ranks of this one",
            param_hint="AFTER",
        )


def _diff_ranks(
    reference: str, section: str | None, impact: str | None, *, is_whole: bool, as_json: bool
) -> int:
    from manifest import ranks
    from manifest_client.cli.local import local_runs
    from manifest_client.rendering.ranks import ranks_page
    from manifest_client.rendering.terminal import out, print_json

    with local_runs(reference) as local:
        manifest = local.store.get_run(local.find(reference))
    if len(ranks.names(manifest)) < 2:
        raise typer.BadParameter(
            f"run {manifest.id} has no ranks to compare: it trained in one process",
            param_hint="--ranks",
        )
    found = {
        name: tuple(
            item
            for item in differences
            if (impact is None or item.impact == impact)
            and (section is None or item.section == section)
        )
        for name, differences in ranks.differences(manifest).items()
    }
    if as_json:
        print_json({name: [item.model_dump(mode="json") for item in found[name]] for name in found})
    else:
        console = out()
        console.print(ranks_page(found, width=console.width, is_whole=is_whole), soft_wrap=True)
    return sum(map(len, found.values()))


def _check_impact(impact: str | None) -> None:
    from typing import get_args

    from manifest.models import Impact

    if impact is not None and impact not in get_args(Impact):
        raise typer.BadParameter(
            f"expected one of {', '.join(get_args(Impact))}, found {impact!r}",
            param_hint="--impact",
        )


def _differences(local: Local, runs: tuple[Manifest, Manifest]) -> Diff:
    from manifest.diffing import diff as diff_manifests
    from manifest.rundir import find_blob

    directories = [_directory(local, run) for run in runs]
    return diff_manifests(*runs, blobs=lambda digest: find_blob(directories, digest))


def _compared_trails(local: Local, runs: tuple[Manifest, Manifest]) -> TrailComparison | None:
    from manifest import ranks
    from manifest.comparing import compare_trails

    before, after = (ranks.trails(_directory(local, run), run) for run in runs)
    return compare_trails(before, after) if before and after else None


def _directory(local: Local, run: Manifest) -> RunDirectory:
    from manifest.rundir import RunDirectory

    return RunDirectory(local.base / "runs" / run.id)


def _print_json(found: Diff, comparison: TrailComparison | None) -> None:
    from manifest_client.rendering.terminal import print_json

    trail = None if comparison is None else comparison.model_dump(mode="json")
    print_json({**found.model_dump(mode="json"), "trail": trail})


def _print(
    found: Diff,
    runs: tuple[Manifest, Manifest],
    comparison: TrailComparison | None,
    *,
    is_whole: bool,
) -> None:
    from manifest.comparing import sentence
    from manifest_client.rendering.diffs import diff_page
    from manifest_client.rendering.terminal import out

    console = out()
    first_step = None if comparison is None else sentence(comparison)
    page = diff_page(found, runs, first_step, width=console.width, is_whole=is_whole)
    console.print(page, soft_wrap=True)
