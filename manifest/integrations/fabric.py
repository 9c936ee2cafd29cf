"""Lightning Fabric: an entry of the state that is saved, with which training goes on exactly."""

from __future__ import annotations

from typing import Any

from manifest.integrations.checkpoints import Stateful, is_underway, name_loaders

_LOADERS = "fabric"


class ManifestState(Stateful):
    """Has a checkpoint of Fabric carry a snapshot, and continues from it exactly.

    Put it last into the state that `fabric.save` and `fabric.load` are given. Records the program
    unless that is recorded already.

    Args:
        loaders: Those that `fabric.setup_dataloaders` gave.
        strict: Raise if the training cannot go on exactly; else this is said, and noted in the
            manifest.

    Example:
        >>> state = {"model": model, "manifest": ManifestState(loader)}  # doctest: +SKIP
        >>> fabric.save("checkpoint.ckpt", state)  # doctest: +SKIP
    """

    def __init__(self, *loaders: Any, strict: bool = True) -> None:
        super().__init__(strict=strict)
        self._loaders = loaders
        name_loaders(_LOADERS, [loader._dataloader for loader in loaders])

    def _progress(self) -> list[list[Any]]:
        # Which epoch it tells the sampler is the number of times that it was iterated.
        return [
            [loader._num_iter_calls - is_underway(loader._dataloader)] for loader in self._loaders
        ]

    def _set_progress(self, progress: list[list[Any]]) -> None:
        for loader, (calls,) in zip(self._loaders, progress, strict=False):
            loader._num_iter_calls = calls
