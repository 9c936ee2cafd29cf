"""`manifest doctor`: whether this machine has what Manifest needs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Final

import typer

from manifest_client.cli.arguments import JsonOption, examples
from manifest_client.cli.replays import standard_output_kept

if TYPE_CHECKING:
    from manifest_client.examining import Finding

_MARKS: Final = {"good": "ok", "warning": "look", "bad": "bad"}


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "doctor",
        epilog=examples("manifest doctor", "manifest doctor --run", "manifest doctor --json"),
    )(doctor)


def doctor(
    *,
    is_running: Annotated[
        bool, typer.Option("--run", help="Record and replay a tiny training too; takes seconds.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Examine this machine: what is missing, and what to do about it.

    Ends with 1 if anything is bad.
    """
    from manifest_client.examining import examine
    from manifest_client.rendering.terminal import print_json

    with standard_output_kept() if as_json else nullcontext():
        findings = list(examine(is_running=is_running))
    if as_json:
        print_json([finding._asdict() for finding in findings])
    else:
        _print_conclusion(findings)
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            _print(finding, width)
    raise typer.Exit(int(any(finding.state == "bad" for finding in findings)))


def _print_conclusion(findings: Sequence[Finding]) -> None:
    from manifest_client.rendering.terminal import out, styled

    named = {
        state: ", ".join(each.what for each in findings if each.state == state)
        for state in ("bad", "warning")
    }
    if named["bad"]:
        headline = styled(("NOT READY", "bad"), f"  To mend: {named['bad']}.")
    elif named["warning"]:
        headline = styled(("READY", "good"), f"  To look at: {named['warning']}.")
    else:
        headline = styled(("READY", "good"), "  Everything that Manifest needs is here.")
    out().print(headline, "", sep="\n", soft_wrap=True)


def _print(finding: Finding, name_width: int) -> None:
    from rich.text import Text

    from manifest_client.rendering.terminal import indented, out, styled

    console = out()
    head = styled((f"  {_MARKS[finding.state]:<4}  ", finding.state))
    head.append_text(styled((f"{finding.what:<{name_width}}  ", "key")))
    parts = [styled(finding.found)]
    if finding.fix:
        parts.append(styled(("fix: ", "good"), finding.fix))
    rows = Text("\n").join([indented(part, head.cell_len, console.width) for part in parts])
    console.print(head.append_text(rows[head.cell_len :]), soft_wrap=True)
