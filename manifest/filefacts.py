"""What is recorded of the files that a run read and wrote.

Small files of the project, its configuration, are kept whole, so that a replay sees them as they
were. Others are recognised: by digest within a budget, else by size and time. Files that may hold
secrets are neither kept nor digested.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from manifest.canonical import Json
from manifest.rundir import RunDirectory

_MOST_KEPT_BYTES = 1 << 20
_MOST_DIGESTED_BYTES = 256 << 20
_BLOCK_BYTES = 1 << 20

Facts = dict[str, Json]


class FileFacts:
    """The facts of the files of one run; those of an input are given once."""

    def __init__(self, run: RunDirectory, root: Path) -> None:
        self._run = run
        self._root = root
        self._given: dict[str, Facts] = {}
        self._budget_bytes = _MOST_DIGESTED_BYTES

    def outputs(self, paths: Iterable[str]) -> dict[str, Json]:
        """What is known of files that were written, by path, where they are still there."""
        described = {path: describe(path) for path in list(paths)}
        return _named_without_secrets({p: f for p, f in described.items() if "missing" not in f})

    def inputs(self, paths: Iterable[str]) -> dict[str, Json]:
        """What is known of files that were read, by path, where it is new.

        They are described as they are found first; of one changed since, only that is told.
        """
        described = {path: self._input(path) for path in list(paths)}
        return _named_without_secrets({path: facts for path, facts in described.items() if facts})

    def _input(self, path: str) -> Facts | None:
        facts = describe(path)
        if "missing" in facts:
            return None
        if path in self._given:
            # As it was when it was read: a checkpoint that the run began from, and wrote over.
            was_rewritten = self._given[path] != facts
            return {"rewritten": True} if was_rewritten else None
        self._given[path] = dict(facts)
        try:
            return facts | self._content(Path(path), facts["size"])
        except OSError as error:
            return facts | {"unreadable": error.strerror or str(error)}

    def _content(self, path: Path, size_bytes: int) -> Facts:
        if size_bytes <= _MOST_KEPT_BYTES and path.is_relative_to(self._root):
            from manifest.environment.confidential import is_confidential

            content = path.read_bytes()
            # Not even its digest, from which a short secret could be guessed.
            is_secret = is_confidential(str(path), content)
            return {} if is_secret else {"blob": self._run.put_blob(content)}
        if size_bytes > self._budget_bytes:
            return {}
        self._budget_bytes -= size_bytes
        return {"digest": content_digest(path)}


def describe(path: str) -> Facts:
    """What is known of a file without reading it."""
    try:
        status = os.stat(path)
    except OSError as error:
        return {"missing": error.strerror or str(error)}
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait, and take from the program
        return {"missing": "not a regular file"}
    return {"size": status.st_size, "mtime_us": status.st_mtime_ns // 1000}


def content_digest(path: Path) -> str:
    """A digest of what a file holds, made at the speed of the disk.

    Raises:
        OSError: It cannot be read.
    """
    import xxhash

    digest = xxhash.xxh3_128()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return f"xxh3:{digest.hexdigest()}"


def _named_without_secrets(files: dict[str, Facts]) -> dict[str, Json]:
    from manifest.environment.redaction import redact_text

    return {redact_text(path): facts for path, facts in files.items()}
