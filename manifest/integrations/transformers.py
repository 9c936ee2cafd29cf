"""Hugging Face Transformers: a callback with which training resumes from a checkpoint exactly."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import transformers.trainer
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from manifest.integrations.checkpoints import name_loaders, put_back, take
from manifest.integrations.prepared import within
from manifest.recording import record

_LOADERS = "transformers.train"

_is_put_back = False
_is_installed = False


class ManifestCallback(TrainerCallback, ExportableState):
    """Puts a snapshot into each checkpoint, and resumes from it exactly.

    Records the program unless that is recorded already. When a training resumes from a checkpoint
    (`resume_from_checkpoint`), generators and the training loader go on where they were when it was
    saved, also in the middle of an epoch. The reference of the snapshot is in
    `trainer_state.json`.

    Args:
        strict: Raise if a training cannot resume exactly; else this is said, and noted in the
            manifest.

    Example:
        >>> trainer = Trainer(..., callbacks=[ManifestCallback()])  # doctest: +SKIP
        >>> trainer.train(resume_from_checkpoint=True)  # doctest: +SKIP
    """

    def __init__(self, *, strict: bool = True) -> None:
        self.carried: str | None = None
        """The reference of the snapshot in the newest checkpoint."""

        self._is_strict = strict
        self._is_resuming = False
        self._training: tuple[Any, Any] | None = None
        record()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Know the training loader, and whether a checkpoint was loaded."""
        _install()
        _begin(is_put_back=False)
        record()
        loader, ahead = within(kwargs["train_dataloader"])
        name_loaders(_LOADERS, [loader], ahead=ahead)
        self._training = state, loader
        self._is_resuming = state.global_step > 0 and not args.ignore_data_skip
        self.carried = _carried(state.stateful_callbacks.setdefault(type(self).__name__, {}))

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the snapshot back, right before the loader is iterated."""
        if self._is_resuming:
            self._is_resuming = False
            _begin(is_put_back=put_back(self.carried, is_strict=self._is_strict))

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the trainer to itself again."""
        _begin(is_put_back=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take no more snapshots."""
        self._training = None

    def state(self) -> dict[str, Any]:
        """Take a snapshot, for the checkpoint that is being saved to carry."""
        self._take()
        return {
            "args": {"strict": self._is_strict},
            "attributes": {"carried": self.carried},
        }

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take a snapshot on the ranks that write no checkpoint."""
        if not args.should_save:
            self._take()

    def _take(self) -> None:
        if self._training is not None:
            state, loader = self._training
            is_epoch_over = not state.epoch % 1
            self.carried = take(state.global_step, [] if is_epoch_over else [loader])


def _carried(saved: Any) -> str | None:
    attributes = saved.get("attributes") if isinstance(saved, dict) else None
    return attributes.get("carried") if isinstance(attributes, dict) else None


def _begin(*, is_put_back: bool) -> None:
    global _is_put_back
    _is_put_back = is_put_back


def _install() -> None:
    global _is_installed
    if _is_installed:
        return
    _is_installed = True
    trainer: Any = transformers.trainer
    trainer.skip_first_batches = _unless_put_back(
        trainer.skip_first_batches, instead=lambda loader, count=0: loader
    )
    trainer.Trainer._load_rng_state = _unless_put_back(
        trainer.Trainer._load_rng_state, instead=lambda self, checkpoint: None
    )


def _unless_put_back(
    original: Callable[..., Any], instead: Callable[..., Any]
) -> Callable[..., Any]:
    # The trainer passes over batches in its own way, and loads states of generators only when it
    # has fetched the next batch. Where a snapshot was put back, both are done, and right.
    @functools.wraps(original)
    def chosen(*args: Any, **kwargs: Any) -> Any:
        return (instead if _is_put_back else original)(*args, **kwargs)

    return chosen
