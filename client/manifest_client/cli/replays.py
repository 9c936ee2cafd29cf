"""`manifest replay`: run a recorded program again and say whether it did the same."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Final

import typer

from manifest_client.cli.arguments import (
    AtolOption,
    JsonOption,
    RtolOption,
    RunArgument,
    examples,
    tolerance,
)

if TYPE_CHECKING:
    from manifest.models import Verdict
    from manifest.planning import Plan
    from manifest.rundir import RunDirectory

EXIT_CODES: Final = {"identical": 0, "within tolerance": 0, "diverged": 1, "not replayable": 3}


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "replay",
        epilog=examples(
            "manifest replay @latest",
            "manifest replay 0199c3f2 --plan",
            "manifest replay @prev --until 100",
            "manifest replay @latest --dense",
            "manifest replay @latest -- --epochs 1",
        ),
    )(replay)


def replay(
    run: RunArgument,
    extra: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARGS", help="More arguments for the program.", show_default=False),
    ] = None,
    *,
    is_plan: Annotated[
        bool, typer.Option("--plan", help="Say what can be put back; run nothing.")
    ] = False,
    best_effort: Annotated[
        bool, typer.Option("--best-effort", help="Go on although something cannot be put back.")
    ] = False,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Run in your own folder instead of a copy.")
    ] = False,
    until: Annotated[
        int | None, typer.Option(min=1, metavar="STEP", help="Stop after so many steps.")
    ] = None,
    is_dense: Annotated[
        bool,
        typer.Option(
            "--dense",
            help="Keep every tensor and operation around the known divergence, and stop after it.",
        ),
    ] = False,
    dense_from: Annotated[
        int | None,
        typer.Option("--from", min=0, metavar="STEP", help="With --dense: begin at this step."),
    ] = None,
    rtol: RtolOption = None,
    atol: AtolOption = None,
    is_agreed: Annotated[
        bool, typer.Option("--yes", "-y", help="Run what someone else recorded without asking.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a recorded program again and compare every step."""
    from manifest import replaying
    from manifest.rundir import find_base
    from manifest_client.cli.local import local_runs

    with local_runs(run) as local:
        original = local.directory(run)
    if dense_from is not None and not is_dense:
        raise typer.BadParameter("it says where --dense begins: add --dense", param_hint="--from")
    window = None
    if is_dense:
        window = replaying.dense_window(original, base=find_base(), start=dense_from, until=until)
    plan = replaying.plan(original, in_place=in_place)
    if is_plan:
        _print_plan(plan, as_json=as_json)
        raise typer.Exit(3 if plan.blocking else 0)
    _say_concerns(plan)
    if not (plan.blocking and not best_effort):
        _ask(original, is_agreed=is_agreed)
    with _standard_output_kept() if as_json else nullcontext():
        verdict = replaying.replay(
            original,
            base=find_base(),
            best_effort=best_effort,
            in_place=in_place,
            until=until,
            tolerance=tolerance(rtol, atol),
            dense=window,
            extra_args=extra or (),
            on_progress=_say,
        )
    _say("")
    print_verdict(verdict, roles=("recorded", "replay"), as_json=as_json)
    raise typer.Exit(EXIT_CODES[verdict.outcome])


def print_verdict(
    verdict: Verdict, *, roles: tuple[str, str], is_whole: bool = False, as_json: bool = False
) -> None:
    """Print what a comparison of two runs showed."""
    from manifest_client.rendering.terminal import out, print_json
    from manifest_client.rendering.verdicts import verdict_page

    if as_json:
        print_json(verdict.model_dump(mode="json"))
        return
    console = out()
    page = verdict_page(verdict, roles=roles, width=console.width, is_whole=is_whole)
    console.print(page, soft_wrap=True)


def _print_plan(plan: Plan, *, as_json: bool) -> None:
    from manifest_client.rendering.terminal import out, print_json
    from manifest_client.rendering.verdicts import plan_page

    if as_json:
        is_blocking = bool(plan.blocking)
        print_json({**plan.model_dump(mode="json"), "is_replayable": not is_blocking})
        return
    console = out()
    console.print(plan_page(plan, width=console.width), soft_wrap=True)


def _say_concerns(plan: Plan) -> None:
    from manifest_client.rendering.terminal import err
    from manifest_client.rendering.verdicts import plan_concerns, plan_summary

    console = err()
    console.print(plan_summary(plan), soft_wrap=True)
    if any(item.state in ("impossible", "approximate") for item in plan.items):
        console.print(plan_concerns(plan, width=console.width), soft_wrap=True)


def _say(what: str) -> None:
    # Lines, not a spinner: the program writes to the same terminal.
    from manifest_client.rendering.terminal import err, styled

    err().print(styled(("manifest: ", "quiet"), what) if what else "", soft_wrap=True)


def _ask(original: RunDirectory, *, is_agreed: bool) -> None:
    owner = original.path.stat().st_uid
    if is_agreed or owner == os.getuid():
        return
    from manifest.models import Manifest
    from manifest_client.rendering.runs import command_line
    from manifest_client.rendering.terminal import shown

    command = shown(command_line(Manifest.model_validate(original.document())))
    what = f"user {owner} recorded this run; replaying it executes their code:\n  {command}\n"
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{what}Read it, then add --yes.", param_hint="RUN")
    typer.confirm(f"{what}Go on?", abort=True, err=True)


@contextmanager
def _standard_output_kept() -> Iterator[None]:
    # The program's own lines go to standard error, so that the answer stands alone.
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
