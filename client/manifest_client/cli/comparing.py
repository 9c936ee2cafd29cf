"""`manifest diff` and `manifest verify`: runs side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from manifest_client.cli.arguments import (
    AfterArgument,
    AllOption,
    AtolOption,
    BeforeArgument,
    JsonOption,
    RtolOption,
    RunsArgument,
    examples,
    tolerance,
)

if TYPE_CHECKING:
    from manifest.models import Diff, Difference, Manifest, TrailComparison, Variation
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
            "manifest diff @latest~2 @prev @latest",
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
    runs: RunsArgument,
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
    """Show where runs differ, and what of it can change results."""
    _check_impact(impact)
    _check_operands(runs, are_ranks=are_ranks)
    wanted = _Wanted(impact, section, is_whole=is_whole, as_json=as_json)
    if are_ranks:
        count = _diff_ranks(runs[0], wanted)
    elif len(runs) == 2:
        count = _diff_two(runs[0], runs[1], wanted)
    else:
        count = _diff_many(runs, wanted)
    raise typer.Exit(1 if has_exit_code and count else 0)


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
    from manifest.verdicts import judge
    from manifest_client.cli.local import local_runs
    from manifest_client.cli.replays import EXIT_CODES, print_verdict

    with local_runs(before) as local:
        runs = local.directory(before), local.directory(after)
    verdict = judge(*runs, tolerance=tolerance(rtol, atol))
    print_verdict(verdict, roles=("before", "after"), is_whole=is_whole, as_json=as_json)
    raise typer.Exit(EXIT_CODES[verdict.outcome])


_Judged = TypeVar("_Judged", "Difference", "Variation")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What of a comparison is asked for, and how."""

    impact: str | None
    section: str | None
    is_whole: bool
    as_json: bool

    def chosen(self, items: Iterable[_Judged]) -> tuple[_Judged, ...]:
        return tuple(
            item
            for item in items
            if self.impact in (None, item.impact) and self.section in (None, item.section)
        )

    @property
    def has_values(self) -> bool:
        return self.is_whole or self.impact is not None


def _check_operands(runs: Sequence[str], *, are_ranks: bool) -> None:
    if are_ranks and len(runs) > 1:
        raise typer.BadParameter(
            "it compares the ranks of one run: leave the other runs away", param_hint="--ranks"
        )
    if not are_ranks and len(runs) == 1:
        raise typer.BadParameter(
            "expected a second run to compare with, or --ranks to compare the ranks of this one",
            param_hint="RUN",
        )


def _diff_two(before: str, after: str, wanted: _Wanted) -> int:
    from manifest_client.cli.local import local_runs

    with local_runs(before) as local:
        runs = local.store.get_run(local.find(before)), local.store.get_run(local.find(after))
        found = _differences(local, runs)
        comparison = _compared_trails(local, runs)
    visible = found.model_copy(update={"differences": wanted.chosen(found.differences)})
    if wanted.as_json:
        _print_json(visible, comparison)
    else:
        _print(visible, runs, comparison, is_whole=wanted.has_values)
        _say_what_is_shown(wanted)
    return len(visible.differences)


def _diff_many(references: Sequence[str], wanted: _Wanted) -> int:
    from manifest.conclusion import conclude
    from manifest.rundir import find_blob
    from manifest.varying import diff_many
    from manifest_client.cli.local import local_runs

    with local_runs(references[0]) as local:
        runs = [local.store.get_run(local.find(reference)) for reference in references]
        directories = [_directory(local, run) for run in runs]
        found = diff_many(runs, blobs=lambda digest: find_blob(directories, digest))
        comparisons = [None, *(_compared_trails(local, (runs[0], run)) for run in runs[1:])]
    chosen, conclusion = wanted.chosen(found), conclude(found)
    if wanted.as_json:
        _print_many_json(conclusion, chosen, runs, comparisons)
    else:
        _print_many(conclusion, chosen, runs, comparisons, is_whole=wanted.has_values)
        _say_what_is_shown(wanted)
    return len(chosen)


def _diff_ranks(reference: str, wanted: _Wanted) -> int:
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
        name: wanted.chosen(differences)
        for name, differences in ranks.differences(manifest).items()
    }
    if wanted.as_json:
        print_json({name: [item.model_dump(mode="json") for item in found[name]] for name in found})
    else:
        console = out()
        page = ranks_page(found, width=console.width, is_whole=wanted.is_whole)
        console.print(page, soft_wrap=True)
    return sum(map(len, found.values()))


def _check_impact(impact: str | None) -> None:
    from typing import get_args

    from manifest.models import Impact

    if impact is not None and impact not in get_args(Impact):
        raise typer.BadParameter(
            f"expected one of {', '.join(get_args(Impact))}, found {impact!r}",
            param_hint="--impact",
        )


def _say_what_is_shown(wanted: _Wanted) -> None:
    # The conclusion is that of the whole comparison: it must not seem to speak of this part alone.
    from manifest_client.rendering.terminal import out, styled

    options = (("impact", wanted.impact), ("section", wanted.section))
    said = " and ".join(f"{name} {value}" for name, value in options if value is not None)
    if said:
        out().print()
        out().print(styled((f"Only {said} is shown; the first line is about all.", "quiet")))


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


def _print_many_json(
    conclusion: str,
    chosen: Sequence[Variation],
    runs: Sequence[Manifest],
    comparisons: Sequence[TrailComparison | None],
) -> None:
    from manifest_client.rendering.terminal import print_json

    print_json(
        {
            "runs": [run.id for run in runs],
            "conclusion": conclusion,
            "variations": [each.model_dump(mode="json") for each in chosen],
            "trails": [each and each.model_dump(mode="json") for each in comparisons],
        }
    )


def _print_many(
    conclusion: str,
    chosen: Sequence[Variation],
    runs: Sequence[Manifest],
    comparisons: Sequence[TrailComparison | None],
    *,
    is_whole: bool,
) -> None:
    from manifest_client.rendering.terminal import out
    from manifest_client.rendering.variations import variations_page

    console = out()
    page = variations_page(
        conclusion, chosen, runs, comparisons, width=console.width, is_whole=is_whole
    )
    console.print(page, soft_wrap=True)
