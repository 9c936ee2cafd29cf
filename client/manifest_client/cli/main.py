"""The command `manifest`: its parts put together, and its exit codes.

``0`` as expected · ``1`` diverged or different · ``2`` a mistake in the call, or no such run ·
``3`` not replayable · ``4`` the service cannot be reached · ``70`` a fault of Manifest itself ·
``130`` interrupted.
`manifest run` ends with the code of its program.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from manifest.errors import FilterInvalid, ManifestError, NotAgreed, NotReplayable
from manifest_client.cli import (
    account,
    auditing,
    comparing,
    delivering,
    doctor,
    exporting,
    listing,
    recording,
    replays,
    serving,
)
from manifest_client.cli.arguments import examples
from manifest_client.problems import ServiceUnreachable

_BROKEN_PIPE = 141

app = typer.Typer(
    name="manifest",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "manifest run -- python train.py      record a run; no change to the code",
        "manifest ls                          the runs recorded here",
        "manifest replay @latest              run it again and compare every step",
        "manifest diff @prev @latest          what changed, and whether it matters",
        "manifest audit -- python train.py    whether a program is reproducible, and what to mend",
    ),
)
recording.add_to(app)
listing.add_to(app)
comparing.add_to(app)
replays.add_to(app)
auditing.add_to(app)
delivering.add_to(app)
exporting.add_to(app)
account.add_to(app)
doctor.add_to(app)
serving.add_to(app)


def main() -> None:
    """Run the command line and leave with its exit code."""
    _prepare_streams()
    try:
        code = _exit_code()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has left: nothing more can be said, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _BROKEN_PIPE
    sys.exit(code)


def _prepare_streams() -> None:
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # whoever started us has closed it
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # A manifest may hold characters that the terminal's encoding lacks.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _exit_code() -> int:
    try:
        app(prog_name="manifest")
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except ManifestError as error:
        return _complain(*_lines(error), code=_code(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        return _complain(_said_by_system(error), code=2)
    except Exception:  # noqa: BLE001, for else it ends with 1, which means "diverged"
        traceback.print_exc()
        fault = "this is a fault of Manifest itself; please report the lines above"
        return _complain(fault, code=70)
    return 0


def _code(error: ManifestError) -> int:
    if isinstance(error, NotReplayable):
        return 3
    return 4 if isinstance(error, ServiceUnreachable) else 2


def _lines(error: ManifestError) -> list[str]:
    if isinstance(error, NotAgreed):
        return str(error).splitlines()
    return [str(error), *(_pointed_at(error) if isinstance(error, FilterInvalid) else ())]


def _pointed_at(error: FilterInvalid) -> list[str]:
    # A filter of one line is shown with a caret under the place where reading failed.
    if not error.text.isprintable() or len(error.text) > 200:
        return []
    return [f"  {error.text}", f"  {' ' * error.position}^"]


def _said_by_system(error: OSError) -> str:
    # As other commands say it: which file, and what is wrong with it, without a number.
    if error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


def _complain(what: object, *lines: str, code: int) -> int:
    from manifest_client.rendering.terminal import err, styled

    console = err()
    console.print(styled(("manifest: ", "bad"), str(what)), soft_wrap=True)
    for line in lines:
        console.print(styled(line), soft_wrap=True)
    return code


def _show_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        typer.echo(f"manifest {version('manifest-replay')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Record a training run, replay it bit for bit, and see what changed."""
