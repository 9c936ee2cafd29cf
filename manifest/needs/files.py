"""The files that a replay finds: the source that ran, and what the program read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from manifest import sources
from manifest.environment.checkout import check_source
from manifest.environment.git import blob_name
from manifest.environment.source import SourceState
from manifest.errors import DigestMismatch, NotReplayable
from manifest.needs import program
from manifest.needs.items import Original, PlanItem, Wish, impossible, item, shortened
from manifest.recorded import Recorded

_MOST_NAMED: Final = 20


def inputs(recorded: Recorded, wish: Wish) -> Iterator[PlanItem]:
    """What the program read: still there, and the same."""
    kept, problems = 0, []
    for path, facts in recorded.inputs.items():
        if recorded.is_own(facts) or facts.missing is not None:
            continue
        is_kept = facts.blob is not None and not wish.in_place
        problem = None if is_kept else _problem(path, recorded)
        kept += problem is None
        if problem is not None:
            problems.append((path, problem))
    for path, problem in problems[:_MOST_NAMED]:
        yield impossible(f"input {shortened(path, most=200)}", problem)
    if len(problems) > _MOST_NAMED:
        yield impossible("inputs", f"{len(problems) - _MOST_NAMED} more are not as recorded")
    if kept:
        yield item("inputs", "equal already", f"{kept} are as recorded", "certain")


def source(recorded: Recorded, wish: Wish, original: Original) -> Iterator[PlanItem]:
    """The source: from its commit where that is to be had, else the files that ran."""
    if wish.in_place:
        yield from _source_in_place(recorded)
        return
    if not recorded.home.is_dir():
        why = f"{recorded.root} is not here, so the program finds only the files of the run"
        yield item("project", "approximate", why, "possible")
    try:
        state = repository(recorded, original)
        named = check_source(state, original.scratch, recorded.home) if state is not None else {}
    except (NotReplayable, DigestMismatch) as error:
        yield _from_files(recorded, f", since {_reason(error)}")
        return
    if state is None:
        yield _from_files(recorded, "")
        return
    yield _from_commit(state, recorded)
    for name in _other_than_committed(recorded, named, original):
        why = "ran with another content than its commit has; what ran is laid out"
        yield item(f"source {shortened(name, most=200)}", "restorable", why, "certain")


def repository(recorded: Recorded, original: Original) -> SourceState | None:
    """The recorded state of the repository, if it can be laid out from the one that is here.

    Raises:
        NotReplayable: There was one, and its state cannot be had.
    """
    state = sources.read_back(recorded.code, original.run)
    if state is not None and not (recorded.home / ".git").exists():
        raise NotReplayable([f"there is no repository in {recorded.home}"])
    return state


def _from_commit(state: SourceState, recorded: Recorded) -> PlanItem:
    changes = f" and {len(state.patch)} bytes of changes" if state.patch else ""
    untracked = f" and {len(state.untracked)} untracked files" if state.untracked else ""
    what = f"commit {(state.commit or '')[:12]}{changes}{untracked}, in a folder of its own"
    gaps = recorded.code.get("git.gaps")
    if state.tree is None or gaps:
        named = ", ".join(map(str, gaps)) if isinstance(gaps, list) else "some files"
        why = f"{what}; not kept: {shortened(named, most=300)}"
        return item("source", "approximate", why, "possible")
    return item("source", "restorable", what, "certain")


def _from_files(recorded: Recorded, because: str) -> PlanItem:
    what = f"{len(recorded.sources)} files from the run directory, in a folder of their own"
    if not because:
        return item("source", "restorable", what, "certain")
    why = f"{what}{because}; files that Python did not run are yours as they are now"
    return item("source", "approximate", shortened(why, most=500), "possible")


def _reason(error: Exception) -> str:
    return "; ".join(error.reasons) if isinstance(error, NotReplayable) else str(error)


def _other_than_committed(
    recorded: Recorded, named: dict[str, str], original: Original
) -> Iterator[str]:
    for name, digest in recorded.sources.items():
        if name not in named:
            continue
        try:
            content = original.run.get_blob(digest)
        except (KeyError, OSError, DigestMismatch):
            continue  # laying it out says so
        if blob_name(content, len(named[name])) != named[name]:
            yield name


def _source_in_place(recorded: Recorded) -> Iterator[PlanItem]:
    root = recorded.home
    changed = [
        name
        for name, digest in recorded.sources.items()
        if not program.is_same(root / name, digest)
    ]
    for name in changed[:_MOST_NAMED]:
        why = "was changed since; leave --in-place away"
        yield impossible(f"source {shortened(name, most=200)}", why)
    if not changed:
        yield item(
            "source", "equal already", f"{len(recorded.sources)} files are as recorded", "certain"
        )


def _problem(path: str, recorded: Recorded) -> str | None:
    return program.changed(recorded.here(path), recorded.inputs[path])
