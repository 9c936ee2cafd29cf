"""The repository of a run, as its manifest keeps it: written as facts, and read back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Final

from manifest.canonical import ABSENT, Digest, Json, checked_digest
from manifest.environment.confidential import is_confidential
from manifest.environment.redaction import redact_text
from manifest.environment.source import (
    LINK,
    LeftOut,
    SourceState,
    Submodule,
    UntrackedFile,
)
from manifest.errors import NotReplayable
from manifest.rundir import RunDirectory

_FILE: Final = "100644"
_MODES: Final = frozenset((_FILE, "100755", LINK))
_MOST_FILES: Final = 5_000
_MOST_BYTES: Final = 128 << 20


def as_facts(state: SourceState, run: RunDirectory) -> dict[str, Json]:
    """What the section `code` says of a repository whose commit is known; keeps its bytes."""
    facts = {f"git.{key}": value for key, value in _described(state, run).items()}
    submodules = dict(_described_submodules(state, run))
    return facts | ({"git.submodules": submodules} if submodules else {})


def _described(state: SourceState, run: RunDirectory) -> dict[str, Json]:
    kept = {_name(file.path): file for file in state.untracked if _is_shown(file)}
    withheld = [file.path for file in state.untracked if not _is_shown(file)]
    facts: dict[str, Json] = {
        "commit": state.commit,
        "branch": state.branch,
        "remote": state.remote,
        "dirty": state.is_dirty,
        "tree": state.tree,
    }
    if state.patch:
        facts["patch"] = run.put_blob(state.patch)
    if kept:
        facts["untracked"] = {name: run.put_blob(file.content) for name, file in kept.items()}
    modes = {name: file.mode for name, file in kept.items() if file.mode != _FILE}
    if modes:
        facts["untracked_modes"] = modes
    left_out = [*(item.path for item in state.left_out), *withheld]
    if left_out:
        facts["left_out"] = sorted(redact_text(_name(path)) for path in left_out)
    if state.gaps:
        facts["gaps"] = [redact_text(str(gap)) for gap in state.gaps]
    return facts


def _described_submodules(
    state: SourceState, run: RunDirectory, within: str = ""
) -> Iterator[tuple[str, Json]]:
    for submodule in state.submodules:
        path = within + _name(submodule.path)
        if submodule.state is None or submodule.state.commit is None:
            yield path, ABSENT
            continue
        unchanged = {"patch": ABSENT, "untracked": ABSENT}
        yield path, unchanged | _described(submodule.state, run)
        yield from _described_submodules(submodule.state, run, path + "/")


def read_back(code: Mapping[str, Json], run: RunDirectory) -> SourceState | None:
    """The state of the repository that the section `code` of an untrusted manifest tells.

    Returns:
        The state, without its tree where a part was not kept; None where there was no repository.

    Raises:
        NotReplayable: What it tells cannot be, or the run lacks the bytes.
    """
    if code.get("git.commit") is None:
        return None
    facts = {key.removeprefix("git."): each for key, each in code.items() if key.startswith("git.")}
    return _read(facts, _map(facts, "submodules"), "", run)


def _read(
    facts: Mapping[str, Json], submodules: Mapping[str, Json], within: str, run: RunDirectory
) -> SourceState:
    commit, problem = facts.get("commit"), None
    if not isinstance(commit, str) or not isinstance(tree := facts.get("tree"), str | None):
        raise NotReplayable(["the recorded commit is none"])
    if tree is None:
        problem = "not all of it was captured"
    left_out = _texts(facts, "left_out")
    has_patch = "patch" in facts and facts["patch"] != ABSENT
    return SourceState(
        problem=problem,
        commit=commit,
        patch=_blob(facts["patch"], run) if has_patch else b"",
        untracked=_untracked(facts, run),
        left_out=tuple(LeftOut(os.fsencode(name), 0, "was not kept") for name in left_out),
        submodules=tuple(_read_submodules(submodules, within, run)),
        tree=None if left_out else tree,
    )


def _read_submodules(
    submodules: Mapping[str, Json], within: str, run: RunDirectory
) -> Iterator[Submodule]:
    inside = [path for path in submodules if path.startswith(within) and path != within]
    for path in inside:
        if any(path.startswith(f"{above}/") for above in inside):
            continue  # read with the one that it is in
        facts = submodules[path]
        name = os.fsencode(path.removeprefix(within))
        if facts == ABSENT:
            yield Submodule(name, None)
        elif isinstance(facts, dict):
            yield Submodule(name, _read(facts, submodules, f"{path}/", run))
        else:
            raise NotReplayable([f"the recorded submodule {path!r} is none"])


def _untracked(facts: Mapping[str, Json], run: RunDirectory) -> tuple[UntrackedFile, ...]:
    modes = _map(facts, "untracked_modes")
    files, size = [], 0
    for name, digest in _map(facts, "untracked").items():
        mode, content = modes.get(name, _FILE), _blob(digest, run)
        size += len(content)
        if mode not in _MODES or size > _MOST_BYTES:
            raise NotReplayable([f"the recorded {name!r} is no file, or far too large"])
        files.append(UntrackedFile(os.fsencode(name), mode, content))
    return tuple(files)


def _blob(digest: Json, run: RunDirectory) -> bytes:
    try:
        return run.get_blob(_digest(digest))
    except KeyError:
        raise NotReplayable([f"the run does not hold its {digest}"]) from None


def _digest(digest: Json) -> Digest:
    try:
        return checked_digest(str(digest))
    except ValueError as error:
        raise NotReplayable([str(error)]) from None


def _map(facts: Mapping[str, Json], key: str) -> dict[str, Json]:
    found = facts.get(key) or {}
    if found == ABSENT:
        return {}
    if not isinstance(found, dict) or len(found) > _MOST_FILES:
        raise NotReplayable([f"git.{key} of the recorded run is not what Manifest writes"])
    return found


def _texts(facts: Mapping[str, Json], key: str) -> list[str]:
    found = facts.get(key) or []
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise NotReplayable([f"git.{key} of the recorded run is not what Manifest writes"])
    return found


def _name(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def _is_shown(file: UntrackedFile) -> bool:
    name = _name(file.path)
    # A name that has no text form could not be found again.
    is_text = os.fsencode(name) == file.path
    return is_text and redact_text(name) == name and not is_confidential(name, file.content)
