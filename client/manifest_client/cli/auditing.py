"""`manifest audit`: whether a program is reproducible, where it is not, and what to mend."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Final

import typer

from manifest_client.cli.arguments import JsonOption, examples
from manifest_client.cli.replays import say, standard_output_kept

if TYPE_CHECKING:
    from manifest.models import Audit

EXIT_CODES: Final = {
    "reproducible": 0,
    "reproducible when replayed": 0,
    "not reproducible": 1,
    "not judged": 3,
}


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "audit",
        context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
        epilog=examples(
            "manifest audit -- python train.py",
            "manifest audit --until 20 -- python train.py --lr 0.1",
            "manifest audit --dense -- python train.py",
            "manifest audit --strict --json -- python train.py > audit.json",
        ),
    )(audit)


def audit(
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="COMMAND",
            help="The program as you start it without Manifest; a .py file runs in this Python.",
            show_default=False,
        ),
    ],
    *,
    until: Annotated[
        int | None,
        typer.Option(min=1, metavar="STEP", help="Stop after so many steps, both times."),
    ] = None,
    is_dense: Annotated[
        bool,
        typer.Option(
            "--dense",
            help="Where the runs part, run it twice more to there, and name the first operation.",
        ),
    ] = False,
    is_strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="End with 1 also where only a replay repeats it: a seed of the clock."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a program twice: is it reproducible, where not, and the cure."""
    from manifest import auditing
    from manifest.rundir import RunDirectory, find_base
    from manifest_client.cli.delivering import begin_delivery, end_delivery

    base = find_base()
    settings = begin_delivery(base)
    with standard_output_kept() if as_json else nullcontext():
        found = auditing.audit(
            command,
            base=base,
            project=settings.project if settings is not None else None,
            until=until,
            is_dense=is_dense,
            on_progress=say,
        )
    _print(found, command, as_json=as_json)
    end_delivery(RunDirectory(base / "runs" / found.run), settings)
    is_only_given_again = found.outcome == "reproducible when replayed"
    raise typer.Exit(1 if is_strict and is_only_given_again else EXIT_CODES[found.outcome])


def _print(found: Audit, command: Sequence[str], *, as_json: bool) -> None:
    from manifest_client.rendering.doubts import audit_page
    from manifest_client.rendering.terminal import out, print_json

    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    console = out()
    dense = shlex.join(["manifest", "audit", "--dense", "--", *command])
    console.print(audit_page(found, width=console.width, dense=dense), soft_wrap=True)
