"""Lightning: a callback with which a fit that goes on from a checkpoint goes on exactly."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from manifest.integrations.checkpoints import KEY, name_loaders, put_back, refuse, take
from manifest.recording import record

if TYPE_CHECKING:
    from pytorch_lightning import Callback
elif "lightning.pytorch" in sys.modules or importlib.util.find_spec("pytorch_lightning") is None:
    from lightning.pytorch import Callback
else:
    from pytorch_lightning import Callback

_LOADERS = "lightning.train"
_LEFT_OUT = (
    "the checkpoint was saved behind the last batch of an epoch and before its validation, which "
    "Lightning leaves out now: save at the end of the epoch, or after validation"
)


class ManifestCallback(Callback):
    """Puts a snapshot into each checkpoint, and continues from it exactly.

    Records the program unless that is recorded already. When a fit begins from a checkpoint
    (`ckpt_path`), generators and the training loader go on where they were when it was saved, also
    in the middle of an epoch.

    Args:
        strict: Raise if a fit cannot go on exactly; else this is said, and noted in the manifest.

    Example:
        >>> trainer = Trainer(callbacks=[ManifestCallback()])  # doctest: +SKIP
        >>> trainer.fit(model, loader, ckpt_path="last")  # doctest: +SKIP
    """

    def __init__(self, *, strict: bool = True) -> None:
        super().__init__()
        self._is_strict = strict
        self._carried: object = None
        self._is_waiting = False
        record()

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Record in a process that a launcher of Lightning has started."""
        record()

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Take a snapshot, and have the checkpoint carry it."""
        if not self._is_needed(trainer):
            return
        underway = [] if _is_epoch_over(trainer) else _training_loaders(trainer)
        if reference := take(trainer.global_step, underway):
            checkpoint[KEY] = reference

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Remember the snapshot until the training goes on."""
        if self._is_needed(trainer) and trainer.state.fn == "fit" and trainer.ckpt_path:
            self._carried = checkpoint.get(KEY)
            self._is_waiting = True

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Put the snapshot back, unless an epoch begins first."""
        _name(trainer)
        loop = trainer.fit_loop
        if loop.resumed_on_epoch_end:
            return
        if self._is_waiting and _leaves_out_validation(trainer):
            refuse(_LEFT_OUT, is_strict=self._is_strict)
        if not self._put_back():
            return
        if not _is_epoch_over(trainer) or loop.epoch_loop.restarted_on_train_batch_end:
            _iterate_again(trainer)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Put the snapshot back that was taken when the epoch before had ended."""
        _name(trainer)
        if self._put_back():
            # Else the epoch would be given by an iterator that was made before this.
            trainer.fit_loop._resuming_from_checkpoint = False

    def _put_back(self) -> bool:
        if not self._is_waiting:
            return False
        self._is_waiting = False
        return put_back(self._carried, is_strict=self._is_strict)

    def _is_needed(self, trainer: Any) -> bool:
        return True


class AutomaticCallback(ManifestCallback):
    """What Lightning adds itself where a program is recorded; leaves it to one that is given."""

    def _is_needed(self, trainer: Any) -> bool:
        return not any(
            isinstance(each, ManifestCallback) and not isinstance(each, AutomaticCallback)
            for each in trainer.callbacks
        )


def _name(trainer: Any) -> None:
    # Where no length tells the last batch, Lightning fetches one ahead to know it when it comes.
    fetcher = trainer.fit_loop._data_fetcher
    ahead = getattr(fetcher, "prefetch_batches", 0) if fetcher.length is None else 0
    name_loaders(_LOADERS, _training_loaders(trainer), ahead=ahead)


def _training_loaders(trainer: Any) -> list[Any]:
    combined = trainer.fit_loop._combined_loader
    return [] if combined is None else list(combined.flattened)


def _is_epoch_over(trainer: Any) -> bool:
    return bool(trainer.fit_loop.epoch_loop._num_ready_batches_reached())


def _leaves_out_validation(trainer: Any) -> bool:
    is_behind_last = trainer.fit_loop.epoch_loop.restarted_on_train_batch_end
    if not (is_behind_last and _is_epoch_over(trainer) and trainer.enable_validation):
        return False
    every = trainer.check_val_every_n_epoch
    return every is None or trainer.current_epoch % every == 0


def _iterate_again(trainer: Any) -> None:
    # Lightning has made its iterators by now, before the samplers knew in which epoch they are.
    loop = trainer.fit_loop
    for loader in _training_loaders(trainer):
        _set_epoch(loader, loop.epoch_progress.current.processed)
    loop._data_fetcher.teardown()
    iter(loop._data_fetcher)


def _set_epoch(loader: Any, epoch: int) -> None:
    batches = getattr(loader, "batch_sampler", None)
    for sampler in (getattr(loader, "sampler", None), getattr(batches, "sampler", None)):
        if callable(set_epoch := getattr(sampler, "set_epoch", None)):
            set_epoch(epoch)
