"""Arguments that several commands share, and how a shell completes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

_REFERENCE_HELP = "A run: the start of its id, @latest, @prev or @latest~2."
_MOST_COMPLETIONS = 50


def complete_run(incomplete: str) -> list[tuple[str, str]]:
    """What a shell offers for a reference to a run: short ids, the newest first.

    Read from the names of run directories alone, since this runs at every press of a key.
    """
    from manifest.identity import short_id
    from manifest.rundir import find_base, run_directories

    words = [("@latest", "the newest run"), ("@prev", "the run before it")]
    offered = [word for word in words if incomplete and word[0].startswith(incomplete)]
    for run in run_directories(find_base()):
        if run.id.startswith(incomplete) and len(offered) < _MOST_COMPLETIONS:
            word = short_id(run.id) if len(incomplete) <= len(short_id(run.id)) else run.id
            offered.append((word, _time_of(run.id)))
    return offered


def _time_of(run_id: str) -> str:
    milliseconds = int(run_id[:13].replace("-", ""), 16)
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone()
    except (OverflowError, ValueError, OSError):
        return "run"
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _reference(metavar: str, help_text: str) -> Any:
    return typer.Argument(
        help=help_text, metavar=metavar, autocompletion=complete_run, show_default=False
    )


RunArgument = Annotated[str, _reference("RUN", _REFERENCE_HELP)]
BeforeArgument = Annotated[
    str, _reference("BEFORE", "The run to compare with: an id, @prev, @latest~2.")
]
AfterArgument = Annotated[str, _reference("AFTER", "The run that is compared with it.")]
RunsArgument = Annotated[
    list[str],
    _reference("RUN...", "Two runs, or more, each compared with the first: ids, @prev, @latest~2."),
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
RtolOption = Annotated[
    float | None,
    typer.Option(
        "--rtol", min=0, metavar="X", help="Allow losses and parameters to differ by this share."
    ),
]
AtolOption = Annotated[
    float | None,
    typer.Option("--atol", min=0, metavar="Y", help="Allow them to differ by this much."),
]
AllOption = Annotated[bool, typer.Option("--all", help="Show everything, nothing folded.")]


def examples(*lines: str) -> str:
    """The end of a command's help: lines that can be copied."""
    # The backspace keeps typer from wrapping the paragraph.
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def tolerance(rtol: float | None, atol: float | None) -> tuple[float, float] | None:
    """What was asked for, relative and absolute; None if nothing was."""
    return None if rtol is None and atol is None else (rtol or 0.0, atol or 0.0)
