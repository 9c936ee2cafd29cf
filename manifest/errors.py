"""Every error the core raises.

ManifestError
├── RunNotFound              no run has this id
├── AmbiguousReference       several runs start with this prefix
├── NewerSchema              the run was written by a newer Manifest
├── DamagedRun               a run directory that cannot be read as one
├── DigestMismatch           bytes that are not what their digest says
├── StateNotRestorable       recorded state that does not fit this program
├── NotReplayable            something needed to run again is missing
├── NotAgreed                someone else recorded it, and nobody agreed to run it
├── UnknownChange            what a replay was told to do otherwise makes no sense
├── NotRecordable            the command cannot be started or watched
└── StoreUnusable            the store cannot be opened, read or written
"""

from __future__ import annotations

__all__ = [
    "AmbiguousReference",
    "DamagedRun",
    "DigestMismatch",
    "ManifestError",
    "NewerSchema",
    "NotAgreed",
    "NotRecordable",
    "NotReplayable",
    "RunNotFound",
    "StateNotRestorable",
    "StoreUnusable",
    "UnknownChange",
]


class ManifestError(Exception):
    """The parent of all errors of this project; its text is meant to be shown as it is."""


class RunNotFound(ManifestError):
    """No run has this id."""

    def __init__(self, reference: str, where: str) -> None:
        self.reference = reference
        self.where = where
        super().__init__(
            f"no run '{reference}' in {where}. `manifest ls` lists the runs that are there."
        )


class AmbiguousReference(ManifestError):
    """Several runs start with this prefix."""

    def __init__(self, reference: str, candidates: list[str]) -> None:
        self.reference = reference
        self.candidates = candidates
        shown = ", ".join(candidates[:5]) + (", …" if len(candidates) > 5 else "")
        super().__init__(f"'{reference}' fits several runs: {shown}. Give more characters.")


class NewerSchema(ManifestError):
    """The run was written by a newer Manifest."""

    def __init__(self, found: int, known: int, where: str) -> None:
        self.found = found
        self.known = known
        super().__init__(
            f"{where} has schema {found}; this Manifest reads schemas up to {known}. "
            "Upgrade with `pip install -U manifest-replay`. Nothing was changed."
        )


class DamagedRun(ManifestError):
    """A run directory that cannot be read as one."""

    def __init__(self, where: str, reason: str) -> None:
        self.where = where
        self.reason = reason
        super().__init__(f"{where} is not a readable run directory: {reason}")


class DigestMismatch(ManifestError):
    """Bytes that are not what their digest says."""

    def __init__(self, expected: str, found: str, where: str) -> None:
        self.expected = expected
        self.found = found
        super().__init__(f"{where}: expected {expected}, found {found}; the bytes were changed.")


class StateNotRestorable(ManifestError):
    """Recorded state that does not fit this program."""


class NotReplayable(ManifestError):
    """Something needed to run again is missing."""

    def __init__(self, reasons: list[str]) -> None:
        self.reasons = reasons
        super().__init__("not replayable: " + "; ".join(reasons))


class NotAgreed(ManifestError):
    """Someone else recorded this run, and nobody agreed to run their code."""


class UnknownChange(ManifestError):
    """What a replay was told to do otherwise makes no sense."""


class NotRecordable(ManifestError):
    """The command cannot be started or watched."""


class StoreUnusable(ManifestError):
    """The store cannot be opened, read or written."""
