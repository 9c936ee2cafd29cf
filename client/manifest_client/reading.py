"""Run directories as readers want them: valid, and what cannot be read is named, not raised."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pydantic import ValidationError

from manifest.errors import DamagedRun, NewerSchema
from manifest.models import Manifest, RunSummary, Verdict
from manifest.rundir import RunDirectory
from manifest.summaries import summarize

Warn = Callable[[str], None]
ReadRun = tuple[Manifest, Verdict | None]


def newest_runs(runs: Iterable[RunDirectory], limit: int, on_warning: Warn) -> list[RunSummary]:
    """The first `limit` of these runs that can be read; the others are not looked at."""
    found: list[RunSummary] = []
    for run in runs:
        if len(found) == limit:
            break
        read = read_run(run, on_warning)
        if read is not None:
            found.append(summarize(*read))
    return found


def read_run(run: RunDirectory, on_warning: Warn) -> ReadRun | None:
    """The manifest and verdict of a run, sealed now if its processes died without an end.

    A directory that cannot be read is named in a warning and left as it is.
    """
    try:
        return read(run)
    except (DamagedRun, NewerSchema) as error:
        on_warning(f"skipped a run: {error}")
    except OSError as error:
        on_warning(f"skipped a run: {run.path}: {error.strerror or error}")
    return None


def read(run: RunDirectory) -> ReadRun:
    """The same, for who does not go on without it.

    Raises:
        DamagedRun: It is not a run, or was changed since it was sealed.
        NewerSchema: A newer Manifest recorded it.
        OSError: The run directory cannot be read, or a dead run not be sealed.
    """
    document = run.document() if _is_unfinished(run) else run.seal()
    verdict = run.verdict()
    try:
        return (
            Manifest.model_validate(document),
            None if verdict is None else Verdict.model_validate(verdict),
        )
    except ValidationError as error:
        raise DamagedRun(str(run.path), first_fault(error)) from None


def first_fault(error: ValidationError) -> str:
    """The first thing that is wrong with a document, and where."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}"


def _is_unfinished(run: RunDirectory) -> bool:
    return not run.is_sealed() and run.is_alive()
