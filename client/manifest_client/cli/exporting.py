"""`manifest export` and `manifest import`: a run in one file, and what other tools read of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from manifest_client.cli.arguments import RunArgument, examples

if TYPE_CHECKING:
    from manifest.models import Manifest
    from manifest.recorded import Recorded
    from manifest.rundir import RunDirectory


class Format(StrEnum):
    """What a run can be written as."""

    ARCHIVE = "archive"
    REQUIREMENTS = "requirements"
    SCRIPT = "script"
    DOCKERFILE = "dockerfile"
    ROCRATE = "rocrate"
    INTOTO = "intoto"


_OF_BYTES: Final = frozenset({Format.ARCHIVE, Format.ROCRATE})
"""Formats that no terminal can show."""


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        "export",
        epilog=examples(
            "manifest export @latest --format archive -o run.tar",
            "manifest export @latest --format requirements > requirements.txt",
            "manifest export 0199c3f2 --format script -o repeat.sh",
        ),
    )(export)
    app.command("import", epilog=examples("manifest import run.tar"))(take_in)


def export(
    run: RunArgument,
    *,
    form: Annotated[
        Format, typer.Option("--format", "-f", help="What to write.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where to; by default standard output."
        ),
    ] = None,
    is_forced: Annotated[
        bool, typer.Option("--force", help="Write over a file that is there.")
    ] = False,
) -> None:
    """Write a run as one file, for another machine or another tool."""
    from manifest_client.cli.local import local_runs

    if output is None and form in _OF_BYTES and sys.stdout.isatty():
        raise typer.BadParameter(f"{form} is not text: add -o FILE", param_hint="--format")
    if output is not None and (fault := _fault(output, is_forced=is_forced)):
        raise typer.BadParameter(fault, param_hint="-o")
    with local_runs(run) as local:
        _write(_pieces(form, local.directory(run)), output)


def take_in(
    archive: Annotated[
        Path,
        typer.Argument(metavar="ARCHIVE", help="What `manifest export` wrote.", show_default=False),
    ],
) -> None:
    """Take in a run that was exported as an archive, as a run directory."""
    from manifest.rundir import find_base
    from manifest_client.archives import unpack
    from manifest_client.cli.local import warn
    from manifest_client.rendering.terminal import out, styled

    imported = unpack(archive, find_base())
    if not imported.is_new:
        warn(f"run {imported.run.id} is here already, and is the same")
    out().print(styled(str(imported.run.path)), soft_wrap=True)


def _fault(output: Path, *, is_forced: bool) -> str | None:
    if output.is_dir():
        return f"{output} is a folder: name a file in it"
    if not output.parent.is_dir():
        return f"there is no folder {output.parent}"
    if not is_forced and os.path.lexists(output):
        return f"{output} is there already: name another file, or add --force"
    return None


def _pieces(form: Format, run: RunDirectory) -> Iterable[bytes]:
    from manifest.models import Manifest
    from manifest.recorded import read
    from manifest_client.archives import packed
    from manifest_client.crates import crated

    if form is Format.ARCHIVE:
        return packed(run)
    manifest = Manifest.model_validate(run.seal())
    recorded = read(manifest, base=run.path.parent.parent)
    if form is Format.ROCRATE:
        return crated(recorded, manifest, run)
    return [os.fsencode(_text(form, recorded, manifest, run))]


def _text(form: Format, recorded: Recorded, manifest: Manifest, run: RunDirectory) -> str:
    match form:
        case Format.REQUIREMENTS:
            from manifest.exports.requirements import requirements_text

            return requirements_text(recorded)
        case Format.SCRIPT:
            from manifest.exports.scripts import script_text

            return script_text(recorded, run)
        case Format.DOCKERFILE:
            from manifest.exports.dockerfiles import dockerfile_text

            return dockerfile_text(recorded, run)
    from manifest.exports.statements import statement

    return json.dumps(statement(recorded, manifest, run), indent=2, ensure_ascii=False) + "\n"


def _write(pieces: Iterable[bytes], output: Path | None) -> None:
    if output is None:
        sys.stdout.flush()
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        return
    draft = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with draft.open("xb") as file:
            file.writelines(pieces)
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)
