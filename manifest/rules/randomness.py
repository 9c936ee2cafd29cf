"""Differences of randomness: entropy, seeds, states of generators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from manifest.canonical import Json
from manifest.findings import DROPPED, Found, Judgement, Pair, catalogued, written
from manifest.identity import short_id

_RANDOMNESS = "https://docs.pytorch.org/docs/stable/notes/randomness.html"


def entropy(found: Found, pair: Pair) -> Judgement | None:
    """Another master matters as far as something that nobody seeded was drawn from it."""
    if found.key == "entropy_from":
        return DROPPED
    if found.key != "entropy":
        return None
    cure = _cure(pair)
    draws, calls = pair.maps("seeds", "draws"), pair.maps("seeds", "calls")
    if draws is None:
        return Judgement("possible", f"what the runs drew from it was not recorded; {cure}")
    if not any(map(_drawn, draws)):
        return Judgement("informational", "neither run drew anything from it")
    if not all(map(_drawn, draws)):
        return Judgement("possible", f"only one of the runs drew from it; {cure}")
    if any(map(_beyond_start, draws)) or (calls is not None and not any(calls)):
        unseeded = "the runs drew their unseeded randomness from different entropy"
        return Judgement("certain", f"{unseeded}; {cure}", _RANDOMNESS)
    start = "generators started from it; matters unless the program seeds them all"
    return Judgement("possible", f"{start}; {cure}", _RANDOMNESS)


def hash_seed(found: Found, pair: Pair) -> Judgement | None:
    """Where nobody set PYTHONHASHSEED, `manifest run` takes one from the entropy of the run."""
    known = catalogued(found, pair)
    if found.key != "hash_seed" or known is None or not pair.differs("seeds", "entropy"):
        return None
    return known._replace(reason=f"{known.reason} Where PYTHONHASHSEED is not set, {_cure(pair)}.")


def _cure(pair: Pair) -> str:
    return f"`manifest run --like {short_id(pair.before_id) or '<id>'}` repeats it"


def _drawn(counts: Mapping[str, Json]) -> bool:
    return any(count not in (0, None) for count in counts.values())


def _beyond_start(counts: Mapping[str, Json]) -> bool:
    # One draw gives a library its start state, which programs often seed over. Further ones of
    # `random` mean little: `tempfile` and forked children make unseeded generators too.
    return any(_is_above_one(counts.get(kind)) for kind in ("numpy.random", "torch"))


def _is_above_one(count: Json) -> bool:
    return isinstance(count, int) and count > 1


def seeding_call(found: Found, pair: Pair) -> Judgement | None:
    """Seeds are noted by place: another place with the same seeds is only edited code."""
    calls = pair.maps("seeds", "calls")
    if found.path[0] != "calls" or found.is_in_both or calls is None:
        return None
    before, after = (Counter(written(seed) or "" for seed in each.values()) for each in calls)
    if before == after:
        return Judgement("informational", "the same seeds were given, from other places")
    return Judgement("possible", "only one of the runs gave a seed at this place", _RANDOMNESS)


def generator(found: Found, pair: Pair) -> Judgement | None:
    """A start state matters for as long as the program has not seeded over it."""
    if not found.is_in_both:
        return Judgement("possible", "only one of the runs had this generator")
    if _has_same_state(*found.values):
        return DROPPED
    calls = pair.maps("seeds", "calls")
    if calls is not None and all(calls):
        reason = "another start state; matters for what is drawn before the program seeds"
        return Judgement("possible", reason, _RANDOMNESS)
    return None


def _has_same_state(before: Json, after: Json) -> bool:
    if not isinstance(before, dict) or not isinstance(after, dict):
        return False
    if "state" not in before or "state" not in after:
        return False
    # The digest, and what people can read, repeat the state, perhaps as another version does.
    repeated = dict.fromkeys(("digest", "seed", "offset", "torch"))
    texts = [written({**entry, **repeated}) for entry in (before, after)]
    return None not in texts and texts[0] == texts[1]
