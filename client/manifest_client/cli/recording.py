"""`manifest run`: record a program from its first instruction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from manifest_client.cli.arguments import complete_run, examples

if TYPE_CHECKING:
    from manifest.launching import Launched
    from manifest.rundir import RunDirectory


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "run",
        # What stands behind the program belongs to it, even what looks like an option of ours.
        context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
        epilog=examples(
            "manifest run -- python train.py --lr 0.1",
            "manifest run train.py",
            "manifest run -- torchrun --nproc-per-node 2 train.py",
            "manifest run --like @latest -- python train.py",
        ),
    )(run)


def run(
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="COMMAND",
            help="The program as you start it without Manifest; a .py file runs in this Python.",
            show_default=False,
        ),
    ],
    *,
    project: Annotated[
        str | None, typer.Option(help="What the run belongs to. Default: the folder's name.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name for people.")] = None,
    like: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            autocompletion=complete_run,
            help="Draw the same unseeded randomness as this run, so that only your change acts.",
        ),
    ] = None,
    pin_entropy: Annotated[
        bool,
        typer.Option(
            "--pin-entropy", help="Make os.urandom repeatable too. Not for programs with secrets."
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing of ours.")] = False,
) -> None:
    """Record a program from its first line on; no change to its code."""
    from manifest.launching import launch
    from manifest.rundir import find_base
    from manifest_client.cli.delivering import begin_delivery, end_delivery

    like_run = None if like is None else _directory(like)
    if not quiet:
        _announce(command, like_run)
    base = find_base()
    settings = begin_delivery(base)
    launched = launch(
        command,
        base=base,
        project=project or (settings.project if settings is not None else None),
        name=name,
        like=like_run,
        pin_entropy=pin_entropy,
    )
    if not quiet:
        _summarize(launched)
    end_delivery(launched.run, settings)
    raise typer.Exit(launched.exit_code)


def _directory(reference: str) -> RunDirectory:
    from manifest_client.cli.local import local_runs

    with local_runs(reference) as local:
        return local.directory(reference)


def _announce(command: list[str], like: RunDirectory | None) -> None:
    import shlex

    from manifest.environment.redaction import redact_argv
    from manifest.identity import short_id
    from manifest_client.rendering.terminal import err, styled

    same = f"  (randomness of {short_id(like.id)})" if like is not None else ""
    # Command lines end up in logs; the salt of one line serves nobody else.
    words = [word if isinstance(word, str) else "<redacted>" for word in redact_argv(command, b"")]
    line = styled(("manifest: ", "quiet"), "recording ", (shlex.join(words), "key"), same)
    err().print(line, soft_wrap=True)


def _summarize(launched: Launched) -> None:
    # A run that went wrong for us went well for the user: its exit code must still come through.
    from manifest.errors import ManifestError
    from manifest_client.cli.local import warn

    try:
        _print_summary(launched)
    except (ManifestError, OSError) as error:
        warn(f"the program ended, but its record cannot be read: {error}")


def _print_summary(launched: Launched) -> None:
    from manifest.identity import short_id
    from manifest_client.cli.local import warn
    from manifest_client.rendering.runs import recorded_lines
    from manifest_client.rendering.terminal import err

    document = launched.run.document()
    for note in document["notes"]:
        if note["where"] == "recording":
            warn(note["what"])
    err().print(recorded_lines(document, short_id(launched.run.id)), soft_wrap=True)
