"""`manifest replay` and `manifest check`: run a program again, or see whether one could."""

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


SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="The same run, but with this: env.NAME, a setting such as torch.num_threads, "
        "entropy=fresh, hash_seed or python. Can be repeated.",
        show_default=False,
    ),
]
InPlaceOption = Annotated[
    bool, typer.Option("--in-place", help="Run in your own folder instead of a copy.")
]
RebuildOption = Annotated[
    bool,
    typer.Option("--rebuild-env", help="Install the recorded packages anew, apart from yours."),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        "replay",
        epilog=examples(
            "manifest replay @latest",
            "manifest replay 0199c3f2 --plan",
            "manifest replay @prev --until 100",
            "manifest replay @latest --set torch.num_threads=1",
            "manifest replay @latest --dense",
            "manifest replay @latest -- --epochs 1",
        ),
    )(replay)
    app.command(
        "check", epilog=examples("manifest check @latest", "manifest check 0199c3f2 --json")
    )(check)


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
    in_place: InPlaceOption = False,
    until: Annotated[
        int | None, typer.Option(min=1, metavar="STEP", help="Stop after so many steps.")
    ] = None,
    pairs: SetOption = None,
    rebuild_env: RebuildOption = False,
    keep_workspace: Annotated[
        bool, typer.Option("--keep-workspace", help="Leave the copy, and say where it is.")
    ] = False,
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
    from manifest.changing import read_changes
    from manifest.planning import Wish
    from manifest.rundir import RunDirectory, find_base
    from manifest_client.cli.delivering import begin_delivery, end_delivery

    changes = read_changes(pairs or (), arguments=extra or ())
    wish = Wish(in_place=in_place, is_rebuilt=rebuild_env, changes=changes)
    original = _directory(run)
    if dense_from is not None and not is_dense:
        raise typer.BadParameter("it says where --dense begins: add --dense", param_hint="--from")
    window = None
    if is_dense:
        window = replaying.dense_window(original, base=find_base(), start=dense_from, until=until)
    plan = replaying.plan(original, wish=wish)
    if is_plan:
        _print_plan(plan, as_json=as_json)
        raise typer.Exit(3 if plan.blocking else 0)
    _say_concerns(plan)
    question = replaying.question(original, wish=wish)
    if not (plan.blocking and not best_effort):
        is_agreed = is_agreed or _ask(question)
    base = find_base()
    settings = begin_delivery(base)
    with standard_output_kept() if as_json else nullcontext():
        verdict = replaying.replay(
            original,
            base=base,
            best_effort=best_effort,
            in_place=in_place,
            until=until,
            tolerance=tolerance(rtol, atol),
            dense=window,
            extra_args=extra or (),
            changes=changes,
            rebuild_env=rebuild_env,
            keep_workspace=keep_workspace,
            is_agreed=is_agreed,
            made=plan if question is None else None,  # of a stranger's, not all was looked at
            on_progress=say,
        )
    say("")
    print_verdict(verdict, roles=("recorded", "replay"), as_json=as_json)
    if verdict.replay is not None:
        end_delivery(RunDirectory(base / "runs" / verdict.replay), settings)
    raise typer.Exit(EXIT_CODES[verdict.outcome])


def check(
    run: RunArgument,
    *,
    in_place: InPlaceOption = False,
    pairs: SetOption = None,
    rebuild_env: RebuildOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say whether a run can be replayed here, and why not; run nothing."""
    replay(
        run,
        is_plan=True,
        in_place=in_place,
        pairs=pairs,
        rebuild_env=rebuild_env,
        as_json=as_json,
    )


def _directory(reference: str) -> RunDirectory:
    from manifest_client.cli.local import local_runs

    with local_runs(reference) as local:
        return local.directory(reference)


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


def say(what: str) -> None:
    """Say what happens next, beside the program's own lines."""
    # Lines, not a spinner: the program writes to the same terminal.
    from manifest_client.rendering.terminal import err, styled

    err().print(styled(("manifest: ", "quiet"), what) if what else "", soft_wrap=True)


def _ask(question: str | None) -> bool:
    if question is None or not sys.stdin.isatty():
        return False  # the replay itself refuses, and says what to do
    from manifest.describing import shown

    lines = "\n".join(shown(line) for line in question.splitlines())
    return typer.confirm(f"{lines}\nGo on?", abort=True, err=True)


@contextmanager
def standard_output_kept() -> Iterator[None]:
    """Leave standard output to the answer."""
    # The program's own lines go to standard error, so that the answer stands alone.
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
