"""Accelerate: what to register so that training goes on exactly, and a tracker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerate.tracking import GeneralTracker

from manifest.integrations.checkpoints import Stateful, name_loaders
from manifest.integrations.prepared import within
from manifest.recording import Run, record

_LOADERS = "accelerate"


class ManifestState(Stateful):
    """Has each checkpoint of an accelerator carry a snapshot, and continues from it exactly.

    Register it when the loaders are prepared, the last of all objects. Records the program unless
    that is recorded already. After `load_state` iterate the prepared loader as it is, without
    `skip_first_batches`: it goes on behind the last batch before the checkpoint.

    Args:
        accelerator: Of which the prepared loaders are continued.
        strict: Raise if the training cannot go on exactly; else this is said, and noted in the
            manifest.

    Example:
        >>> accelerator.register_for_checkpointing(ManifestState(accelerator))  # doctest: +SKIP
    """

    def __init__(self, accelerator: Any, *, strict: bool = True) -> None:
        super().__init__(strict=strict)
        self._accelerator = accelerator
        self._name()

    def state_dict(self) -> dict[str, Any]:
        """Take a snapshot, for the checkpoint that is being saved to carry."""
        self._name()
        return super().state_dict()

    def load_state_dict(self, state: Any) -> None:
        """Put the snapshot back; loaders go on when they are iterated next."""
        self._name()
        super().load_state_dict(state)

    def _name(self) -> None:
        for number, loader in enumerate(self._accelerator._dataloaders):
            base, ahead = within(loader)
            name_loaders(f"{_LOADERS}.{number}", [base], ahead=ahead)

    def _progress(self) -> list[list[Any]]:
        return [_progress_of(loader) for loader in self._accelerator._dataloaders]

    def _set_progress(self, progress: list[list[Any]]) -> None:
        # Accelerate saves neither: it would begin at its first epoch again, in another order.
        for loader, (iteration, seed) in zip(
            self._accelerator._dataloaders, progress, strict=False
        ):
            if iteration is not None:
                loader.iteration = iteration
            if seed is not None:
                loader.get_sampler().initial_seed = seed


class ManifestTracker(GeneralTracker):  # type: ignore[misc]
    """Has the configuration that Accelerate's trackers are given in the manifest.

    Records the program unless that is recorded already. What is logged of steps is left to trackers
    that keep it.

    Example:
        >>> accelerator = Accelerator(log_with=[ManifestTracker(), "tensorboard"])  # doctest: +SKIP
        >>> accelerator.init_trackers("digits", config={"lr": 0.1})  # doctest: +SKIP
    """

    name = "manifest"
    requires_logging_directory = False

    def __init__(self) -> None:
        super().__init__()
        self._run = record()

    @property
    def tracker(self) -> Run:
        """The run that is recorded, as `accelerator.get_tracker("manifest", unwrap=True)` gives."""
        return self._run

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Record the configuration."""
        self._run.log_config(values)


def _progress_of(loader: Any) -> list[Any]:
    iteration = getattr(loader, "iteration", None)
    if iteration is not None and _has_given_its_last(loader):
        iteration += 1
    sampler = loader.get_sampler() if hasattr(loader, "get_sampler") else None
    return [iteration, getattr(sampler, "initial_seed", None)]


def _has_given_its_last(loader: Any) -> bool:
    iterated = loader.gradient_state.dataloader_references
    return loader.end_of_dataloader and any(each is loader for each in iterated)
