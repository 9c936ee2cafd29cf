"""The repository of a run, as its manifest keeps it: written as facts, and read back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from manifest.canonical import Digest, Json, checked_digest
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
    kept = {_name(file.path): file for file in state.untracked if _is_shown(file)}
    withheld = [file.path for file in state.untracked if not _is_shown(file)]
    facts: dict[str, Json] = {
        "git.commit": state.commit,
        "git.branch": state.branch,
        "git.remote": state.remote,
        "git.dirty": state.is_dirty,
        "git.tree": state.tree,
    }
    if state.patch:
        facts["git.patch"] = run.put_blob(state.patch)
    if kept:
        facts["git.untracked"] = {name: run.put_blob(file.content) for name, file in kept.items()}
    modes = {name: file.mode for name, file in kept.items() if file.mode != _FILE}
    if modes:
        facts["git.untracked_modes"] = modes
    if state.submodules:
        facts["git.submodules"] = {_name(item.path): item.commit for item in state.submodules}
    left_out = [*(item.path for item in state.left_out), *withheld]
    if left_out:
        facts["git.left_out"] = sorted(redact_text(_name(path)) for path in left_out)
    if state.gaps:
        facts["git.gaps"] = [redact_text(str(gap)) for gap in state.gaps]
    return facts


def read_back(code: Mapping[str, Json], run: RunDirectory) -> SourceState | None:
    """The state of the repository that the section `code` of an untrusted manifest tells.

    Returns:
        The state, without its tree where a part was not kept; None where there was no repository.

    Raises:
        NotReplayable: What it tells cannot be, or the run lacks the bytes.
    """
    commit, problem = code.get("git.commit"), None
    if commit is None:
        return None
    if not isinstance(commit, str) or not isinstance(tree := code.get("git.tree"), str | None):
        raise NotReplayable(["the recorded commit is none"])
    if tree is None:
        problem = "not all of it was captured"
    left_out = _texts(code, "git.left_out")
    return SourceState(
        problem=problem,
        commit=commit,
        patch=_blob(code.get("git.patch"), run) if "git.patch" in code else b"",
        untracked=_untracked(code, run),
        left_out=tuple(LeftOut(os.fsencode(name), 0, "was not kept") for name in left_out),
        submodules=tuple(
            Submodule(
                os.fsencode(name), commit if isinstance(commit, str) else None, is_dirty=False
            )
            for name, commit in _map(code, "git.submodules").items()
        ),
        tree=None if left_out else tree,
    )


def _untracked(code: Mapping[str, Json], run: RunDirectory) -> tuple[UntrackedFile, ...]:
    modes = _map(code, "git.untracked_modes")
    files, size = [], 0
    for name, digest in _map(code, "git.untracked").items():
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


def _map(code: Mapping[str, Json], key: str) -> dict[str, Json]:
    found = code.get(key) or {}
    if not isinstance(found, dict) or len(found) > _MOST_FILES:
        raise NotReplayable([f"{key} of the recorded run is not what Manifest writes"])
    return found


def _texts(code: Mapping[str, Json], key: str) -> list[str]:
    found = code.get(key) or []
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise NotReplayable([f"{key} of the recorded run is not what Manifest writes"])
    return found


def _name(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def _is_shown(file: UntrackedFile) -> bool:
    name = _name(file.path)
    # A name that has no text form could not be found again.
    is_text = os.fsencode(name) == file.path
    return is_text and redact_text(name) == name and not is_confidential(name, file.content)
