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
├── ArgumentInvalid          an argument that nothing can be done with
├── NotRecordable            the command cannot be started or watched
├── StoreUnusable            the store cannot be opened, read or written
├── FilterInvalid            a filter that cannot be read
├── AnnotationsChanged       someone else changed them first
├── TokenNotFound            no token has this id
├── DigestWrong              a manifest that its own digest does not name
├── BlobNotFound             no bytes are kept under this digest
├── SectionsLacking          sections were left out that are not known
├── SegmentsLacking          segments of a trail were left out that are not known
├── TrailNotFound            this process of the run has no trail
├── TrailInvalid             bytes that are no rows of a trail
├── TrailDiffers             rows that are not those that are kept
├── TrailGap                 rows that do not follow those that are kept
├── GoldenInvalid            a file beside a test that holds no golden
└── SettingsInvalid          a setting of the service that cannot be
"""

from __future__ import annotations

__all__ = [
    "AmbiguousReference",
    "AnnotationsChanged",
    "ArgumentInvalid",
    "BlobNotFound",
    "DamagedRun",
    "DigestMismatch",
    "DigestWrong",
    "FilterInvalid",
    "GoldenInvalid",
    "ManifestError",
    "NewerSchema",
    "NotAgreed",
    "NotRecordable",
    "NotReplayable",
    "RunNotFound",
    "SectionsLacking",
    "SegmentsLacking",
    "SettingsInvalid",
    "StateNotRestorable",
    "StoreUnusable",
    "TokenNotFound",
    "TrailDiffers",
    "TrailGap",
    "TrailInvalid",
    "TrailNotFound",
    "UnknownChange",
]


class ManifestError(Exception):
    """The parent of all errors of this project; its text is meant to be shown as it is."""

    def __reduce__(self) -> tuple[object, ...]:
        # As it is: by default it would be made again of its text, which most are not made of, so
        # that a pool of processes broke where one of its tasks raised this.
        return _remade, (type(self), self.args), vars(self)


class RunNotFound(ManifestError):
    """No run has this id."""

    def __init__(self, reference: str, where: str) -> None:
        self.reference = reference
        self.where = where
        is_service = where.startswith(("http://", "https://"))
        listing = "manifest ls --remote" if is_service else "manifest ls"
        super().__init__(
            f"no run '{reference}' in {where}. `{listing}` lists the runs that are there."
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


class ArgumentInvalid(ManifestError, ValueError):
    """An argument that nothing can be done with."""


class NotRecordable(ManifestError):
    """The command cannot be started or watched."""


class StoreUnusable(ManifestError):
    """The store cannot be opened, read or written."""


class FilterInvalid(ManifestError):
    """A filter that cannot be read."""

    def __init__(self, text: str, position: int, expected: str) -> None:
        self.text = text
        self.position = position
        """Characters before the place where reading failed."""
        self.expected = expected
        around = text[max(0, position - 30) : position + 30]
        found = f"found {text[position : position + 20]!r}" if text[position:] else "it ends there"
        super().__init__(
            f"the filter cannot be read at character {position + 1} (near {around!r}): "
            f"expected {expected}, {found}."
        )


class AnnotationsChanged(ManifestError):
    """Someone else changed tags or note first."""

    def __init__(self, run_id: str, expected: int, found: int) -> None:
        self.run_id = run_id
        self.expected = expected
        self.found = found
        super().__init__(
            f"tags and note of run {run_id} were changed in the meantime: expected version "
            f"{expected}, found {found}. Read them again and repeat the change."
        )


class TokenNotFound(ManifestError):
    """No token has this id."""

    def __init__(self, token_id: str) -> None:
        self.token_id = token_id
        super().__init__(
            f"there is no token '{token_id}', or it was revoked before. `manifest token ls` lists "
            "those that there are."
        )


class DigestWrong(ManifestError):
    """A manifest that its own digest does not name."""

    def __init__(self, run_id: str, expected: str, found: str) -> None:
        self.expected = expected
        self.found = found
        super().__init__(
            f"the manifest of run {run_id} has the digest {found}, not {expected} as it says: it "
            "is not the one that was sealed. Send it as it is."
        )


class BlobNotFound(ManifestError):
    """No bytes are kept under this digest."""

    def __init__(self, digest: str) -> None:
        self.digest = digest
        super().__init__(f"there is no blob {digest} that you may read.")


class SectionsLacking(ManifestError):
    """Sections were left out that are not known."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        super().__init__(
            f"sections were left out that are not known here: {', '.join(names)[:500]}. Send the "
            "manifest again with them."
        )


class SegmentsLacking(ManifestError):
    """Segments of a trail were left out that are not known."""

    def __init__(self, keys: list[str]) -> None:
        self.keys = keys
        super().__init__(
            f"{len(keys)} segments were left out that are not known here. Send their rows."
        )


class TrailNotFound(ManifestError):
    """This process of the run has no trail."""

    def __init__(self, run_id: str, process: str) -> None:
        super().__init__(f"no trail of a process '{process}' is kept for run {run_id}.")


class TrailInvalid(ManifestError):
    """Bytes that are no rows of a trail."""


class TrailDiffers(ManifestError):
    """Rows that are not those that are kept."""

    def __init__(self, process: str, step: int) -> None:
        super().__init__(
            f"the trail of '{process}' is kept with other rows from step {step} on, and rows never "
            "change. Is this another run under the same id?"
        )


class TrailGap(ManifestError):
    """Rows that do not follow those that are kept."""

    def __init__(self, process: str, start: int, kept: int) -> None:
        self.kept = kept
        super().__init__(
            f"rows of '{process}' from step {start} do not follow those that are kept: send from "
            f"step {kept} on."
        )


class SettingsInvalid(ManifestError):
    """A setting of the service that cannot be."""


class GoldenInvalid(ManifestError):
    """A file beside a test that holds no golden of this version."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"this is no golden: {reason}. `--manifest-golden=write` writes it anew.")


def _remade(kind: type[ManifestError], args: tuple[object, ...]) -> ManifestError:
    return kind.__new__(kind, *args)
