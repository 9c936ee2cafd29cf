"""W&B: a run there and its manifest name each other, by one line of the program."""

from __future__ import annotations

from typing import Any

from manifest import recorder


def link(run: Any) -> None:
    """Write the id of the manifest into the configuration of a run of W&B, and its id here.

    Does nothing where the program is not recorded, where W&B is disabled, or given the stand-in
    for a run that frameworks hand to ranks but the first; never raises.

    Args:
        run: What `wandb.init` gives, or a logger of a framework as its ``experiment``.

    Example:
        >>> link(wandb.init(project="digits"))  # doctest: +SKIP
    """
    recording = recorder.active()
    if recording is None:
        return
    with recording.guarded("links"):
        if run.disabled:  # everything is true of the stand-in that frameworks give other ranks
            return
        facts = {
            "run_id": run.id,
            "entity": run.entity or None,  # none without a network
            "project": run.project,
            "url": None if run.offline else run.url,  # asking for it would complain
        }
        recording.links.add("wandb", facts)
        run.config.update({"manifest": recording.run.id}, allow_val_change=True)
