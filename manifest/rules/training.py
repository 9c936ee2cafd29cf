"""Differences of what a program trains with: loaders and optimizers."""

from __future__ import annotations

from typing import Final

from manifest.findings import DROPPED, Found, Judgement, Pair, catalogued, is_tagged

_RANDOMNESS = "https://docs.pytorch.org/docs/stable/notes/randomness.html"
_OF_WORKERS: Final = ("multiprocessing_context", "persistent_workers", "prefetch_factor")


def only_one(found: Found, _: Pair) -> Judgement | None:
    """A loader or an optimizer that only one of the runs had is one difference."""
    if len(found.path) != 1 or found.is_in_both or found.key in ("autocast", "nondeterministic"):
        return None
    verb = "went through this loader" if found.section == "loaders" else "stepped this optimizer"
    return Judgement("possible", f"only one of the runs {verb}")


def batch(found: Found, pair: Pair) -> Judgement | None:
    """The batch of all ranks together is what a step sums over."""
    worlds = pair.values("settings", "torch.distributed.world_size")
    counts = (*found.values, *worlds)
    if found.path[-1] != "batch_size" or not all(type(count) is int for count in counts):
        return None
    known = catalogued(found, pair) or Judgement("certain", "", _RANDOMNESS)
    if worlds[0] == worlds[1]:
        return known
    is_same = found.before * worlds[0] == found.after * worlds[1]
    joint = "the same, but summed in another order" if is_same else "another too"
    return known._replace(reason=f"{known.reason} Over all ranks the batch is {joint}.".strip())


def of_loader(found: Found, pair: Pair) -> Judgement | None:
    """What a loader hands to its sampler, or has only because of another fact, adds nothing."""
    if len(found.path) != 2:
        return None
    loader, key = found.path
    facts = pair.maps("loaders", loader)
    if facts is None:
        return None
    owner, dot, name = key.rpartition(".")
    if dot and name in facts[0] and found.values == tuple(each.get(name) for each in facts):
        return DROPPED  # a batch sampler repeats what the loader was told
    causes = {"num_workers"} if key in _OF_WORKERS and None in found.values else set()
    if dot and not (found.was_captured_before and found.was_captured_after):
        causes.add(owner)
    return _follows(causes, facts, loader)


def of_optimizer(found: Found, pair: Pair) -> Judgement | None:
    """An option that only one class has, and the precision that all new tensors have."""
    if len(found.path) != 2:
        return None
    optimizer, key = found.path
    facts = pair.maps("training", optimizer)
    if facts is not None and not (found.was_captured_before and found.was_captured_after):
        return _follows({"class"}, facts, optimizer)
    defaults = pair.values("settings", "torch.default_dtype")
    if key == "dtypes" and defaults == found.values:
        return Judgement("informational", "follows from torch.default_dtype, which differs too")
    return None


def _follows(
    causes: set[str], facts: tuple[dict[str, object], dict[str, object]], owner: str
) -> Judgement | None:
    for cause in sorted(causes):
        if facts[0].get(cause) != facts[1].get(cause):
            reason = f"follows from {owner}.{cause}, which differs too"
            return Judgement("informational", reason)
    return None


def start_method(found: Found, _: Pair) -> Judgement | None:
    """The way to start processes is settled when the first is started."""
    if found.key != "torch.multiprocessing.start_method" or None not in found.values:
        return None
    if not found.is_in_both or any(is_tagged(value) for value in found.values):
        return None
    return Judgement("informational", "settled at first use; one of the runs started no process")
