"""A run directory that comes from elsewhere: made whole and checked, or not at all."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from manifest.errors import DamagedRun
from manifest.journal import Journal
from manifest.models import Manifest
from manifest.rundir import RunDirectory, furnish

PROCESS: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~-]{0,127}")
"""Names of processes that may become names of files."""
_ENTROPY: Final = re.compile(r"[0-9a-f]{64}")


@contextmanager
def drafted(base: Path, run_id: str) -> Iterator[RunDirectory]:
    """An empty run directory apart from the others, which is gone in the end unless settled."""
    # Made under a base of its own, for the folder of a run is named by its id.
    folder, was_there = base / f".arriving-{os.getpid()}", base.is_dir()
    try:
        yield RunDirectory.create(folder, run_id)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not was_there:
            with suppress(OSError):  # something was settled in it
                base.rmdir()


def settle(draft: RunDirectory, base: Path) -> RunDirectory:
    """Put a draft among the runs of `base`, unless another process was quicker."""
    (base / "runs").mkdir(exist_ok=True)
    furnish(base)
    run = RunDirectory(base / "runs" / draft.id)
    try:
        draft.path.rename(run.path)
    except OSError:
        if not run.path.is_dir():
            raise
    return run


def write_origin(draft: RunDirectory, manifest: Manifest) -> None:
    """Write the entry that a run begins with, from which a replay takes its entropy.

    Raises:
        DamagedRun: The manifest does not tell it.
    """
    seeds = manifest.sections.get("seeds", {})
    root = manifest.sections.get("command", {}).get("root")
    entropy = seeds.get("entropy")
    if not isinstance(entropy, str) or not _ENTROPY.fullmatch(entropy):
        raise DamagedRun(draft.id, "it does not say from which entropy it drew")
    if not isinstance(root, str) or not os.path.isabs(root):
        raise DamagedRun(draft.id, "it does not say in which folder it ran")
    journal = Journal(draft.path / "journal" / "run.jsonl")
    said: dict[str, Any] = {
        "schema": manifest.schema_version,
        "id": manifest.id,
        "mode": manifest.mode,
        "project": manifest.project,
        "name": manifest.name,
        "replay_of": manifest.replay_of,
        "root": root,
        "entropy": entropy,
        "entropy_from": seeds.get("entropy_from"),
        "pinned_os_entropy": seeds.get("pinned_os_entropy") is True,
    }
    journal.append("run", **said)
    failure = journal.failure
    journal.close()
    if failure is not None:
        raise failure
