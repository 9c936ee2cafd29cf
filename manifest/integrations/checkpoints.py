"""What the checkpoint of a framework carries of the run, and what is put back from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from manifest import recorder
from manifest.errors import ManifestError, StateNotRestorable
from manifest.recorder import complain
from manifest.recording import record
from manifest.rewinding import replay

KEY = "manifest"
"""Under which a checkpoint carries the reference of its snapshot."""


def take(name: str | int | None, underway: Collection[Any] | None) -> str | None:
    """Take a snapshot to go with a checkpoint.

    Args:
        name: What to call it, the same on every rank; numbered if it is left out.
        underway: The loaders that a program which loads the checkpoint continues where they are;
            None for each that is being iterated.

    Returns:
        The reference that the checkpoint is to carry; None if the program is not recorded.
    """
    active = recorder.active()
    taken = None if active is None else active.snapshot(name, underway=underway)
    return None if active is None or taken is None else f"{active.run.id}:{taken}"


def put_back(carried: object, *, is_strict: bool) -> bool:
    """Continue this program from the snapshot that a checkpoint carries.

    Args:
        carried: What the checkpoint has under the key; None if it has nothing.
        is_strict: Raise if that is not possible; else it is said on the terminal and noted.

    Returns:
        Whether it was put back.

    Raises:
        ManifestError: The snapshot cannot be found or put back, and `is_strict`.
    """
    active = recorder.active()
    if active is None:
        return False
    if not isinstance(carried, str):
        active.note("snapshots", "the checkpoint carries none: generators are as they come")
        return False
    try:
        replay(carried, strict=is_strict)
    except ManifestError as error:
        if is_strict:
            raise
        refuse(str(error), is_strict=False)
        return False
    return True


def refuse(reason: str, *, is_strict: bool) -> None:
    """Have a program not go on, or say that it does so otherwise than the one that was saved.

    Raises:
        StateNotRestorable: If `is_strict`.
    """
    if is_strict:
        raise StateNotRestorable(reason)
    if (active := recorder.active()) is not None:
        active.note("snapshots", reason)
    complain(f"this run goes on, but not exactly where the checkpoint was saved: {reason}")


def name_loaders(names: str, loaders: Collection[Any], *, ahead: int = 0) -> None:
    """Know a framework's loaders by names of their own, wherever the framework makes them.

    Args:
        names: The beginning of the names.
        loaders: The loaders of PyTorch, without what is wrapped around them.
        ahead: How many batches the framework holds that it has not given to the training yet.
    """
    active = recorder.active()
    if active is not None:
        for number, loader in enumerate(loaders):
            active.name_loader(f"{names}.{number}", loader, ahead=ahead)


class Stateful:
    """What is saved and loaded as models and optimizers are, by their `state_dict`.

    Args:
        strict: Raise if the program cannot go on exactly; else this is said, and noted in the
            manifest.
    """

    def __init__(self, *, strict: bool = True) -> None:
        self._is_strict = strict
        record()

    def state_dict(self) -> dict[str, Any]:
        """Take a snapshot, for the checkpoint that is being saved to carry."""
        return {KEY: take(None, None), "loaders": self._progress()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the snapshot back; loaders go on when they are iterated next."""
        self._set_progress(state.get("loaders", []))
        put_back(state.get(KEY), is_strict=self._is_strict)

    def _progress(self) -> list[list[Any]]:
        """What the framework's loaders know of their epochs."""
        return []

    def _set_progress(self, progress: list[list[Any]]) -> None:
        """Have the framework's loaders know it again."""


def is_underway(loader: Any) -> bool:
    """Whether a loader of PyTorch is being iterated."""
    active = recorder.active()
    return active is not None and active.is_underway(loader)
