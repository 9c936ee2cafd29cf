"""Whether the trails of two runs can bear witness that the runs are equal, where none differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from manifest.models import Manifest, TrailComparison
from manifest.trail import Trail

_COMPUTED = frozenset({"loss", "grad", "param"})

Trails = Mapping[str, Trail]


def unfit(
    before: tuple[Manifest, Trails], after: tuple[Manifest, Trails], *, until: int | None = None
) -> str | None:
    """Say why the lengths of two trails mean nothing, or None: they were cut, not the program.

    Args:
        before: The recorded run, and its trails by process.
        after: The replay, and its.
        until: The step at which the replay was stopped, after which nothing is wanted of either.
    """
    for process, trail in before[1].items():
        other = after[1].get(process, trail)
        if other.algorithm != trail.algorithm:
            ways = f"{trail.algorithm} and {other.algorithm}"
            return f"the fingerprints of the two runs were made in two ways, {ways}"
    for whose, (manifest, trails) in (("the recorded run", before), ("the replay", after)):
        if not manifest.processes and not trails:
            ended = f": it ended with exit code {manifest.exit_code}" if manifest.exit_code else ""
            return f"{whose} recorded nothing{_noted(manifest, 'recording') or ended}"
        if until is not None and all(t.steps >= until for t in trails.values() if t.steps):
            continue
        if manifest.status == "running":
            return f"{whose} is still going on"
        if any(note.where == "trail" for note in manifest.notes):
            return f"{whose} was not watched to its end{_noted(manifest, 'trail')}"
    return None


def uncompared(before: Manifest, after: Manifest, comparison: TrailComparison) -> str | None:
    """Say what was not compared, without which nobody can call the runs identical, or None."""
    if before.status == "crashed" and comparison.steps_before == 0:
        return "the recorded run was killed before its first step"
    for stream, step in comparison.one_sided.items():
        blind = next(_blindness(before, after, stream), "")
        return f"only one of the runs observed the {_NAMES[stream]} at step {step}{blind}"
    if not comparison.streams:
        return "neither run drew a random number or made a training step: nothing to compare"
    if not _COMPUTED & {*comparison.streams}:
        return (
            "no training step, loss, gradient or parameter was observed, so that nothing that was "
            "computed can be compared; `run.step(loss=…, model=…)` of `manifest.record()` shows it"
        )
    return None


_NAMES = {
    "rng": "generators",
    "batch": "batch",
    "loss": "loss",
    "grad": "gradients",
    "param": "parameters",
}


def _blindness(before: Manifest, after: Manifest, stream: str) -> Iterator[str]:
    for whose, manifest in (("the recorded run", before), ("the replay", after)):
        if noted := _noted(manifest, f"trail.{stream}"):
            yield f"; {whose} could not go on{noted}"


def _noted(manifest: Manifest, where: str) -> str:
    return next((f": {note.what}" for note in manifest.notes if note.where == where), "")
