"""What a difference can do to the results: the rules of its section are asked, then the catalogue.

A rule answers with a judgement, with `DROPPED` (what differs identifies a run and decides nothing),
or with None: then the next is asked. No rule depends on which run comes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from manifest.canonical import Json
from manifest.findings import (
    UNKNOWN,
    Found,
    Judgement,
    Pair,
    Rule,
    Sections,
    catalogued,
    is_tagged,
    written,
)
from manifest.rules import (
    accelerators,
    effects,
    files,
    libraries,
    places,
    precision,
    randomness,
    training,
)

RULES: Final[Mapping[str, tuple[Rule, ...]]] = {
    "command": (places.command,),
    "links": (places.link,),
    "code": (files.source_file, files.revision),
    "settings": (
        libraries.torch_release,
        precision.older_switch,
        precision.inherited,
        effects.hash_probe,
        effects.restated,
        training.start_method,
    ),
    "seeds": (randomness.entropy, randomness.hash_seed, randomness.seeding_call),
    "generators": (randomness.generator,),
    "loaders": (training.only_one, training.of_loader, training.batch),
    "training": (training.only_one, training.of_optimizer),
    "packages": (libraries.torch_release, libraries.kernels, libraries.package),
    "environment": (places.interpreter, libraries.origin, effects.cause, effects.processors),
    "hardware": (effects.processors, accelerators.multiprocessors),
    "inputs": (files.input_file,),
    "outputs": (files.output_file,),
}
"""The rules of each section, in the order in which they are asked."""


def judge(found: Found, pair: Pair) -> Judgement:
    """Say what a difference can do to the results, or that it is none (`DROPPED`)."""
    judgement = _answer(found, pair)
    doubt = _doubt(found) if judgement.impact in ("certain", "possible") else None
    if doubt is None:
        return judgement
    said = judgement.reason[:1].upper() + judgement.reason[1:]
    reason = f"{doubt}, so whether the runs differ here is not known. {said}"
    return Judgement("unknown", reason, judgement.source)


def _answer(found: Found, pair: Pair) -> Judgement:
    # Without a generator: of many runs thousands of keys are judged.
    for rule in _ASKED.get(found.section, _ASKED_ANYWHERE):
        if (answer := rule(found, pair)) is not None:
            return answer
    return UNKNOWN


def secret(found: Found, pair: Pair) -> Judgement | None:
    """Stand-ins of secrets compare only where they were made with one salt.

    Each folder of runs has its own, which no manifest tells. Equal stand-ins anywhere show that the
    salt is one; then another stand-in is another secret.
    """
    is_nested = isinstance(found.before, (dict, list)) and isinstance(found.after, (dict, list))
    if not is_nested or "$redacted" not in (written(found.before) or ""):
        return None
    masked = [written(_masked(value)) for value in found.values]
    if None in masked or masked[0] != masked[1]:
        return None
    if _stand_ins(pair.before) & _stand_ins(pair.after):
        return None
    reason = "redacted in both runs: another secret, or the same one kept in another folder of runs"
    return Judgement("unknown", reason)


def _masked(value: Json) -> Json:
    if is_tagged(value, "$redacted"):
        return {"$redacted": ""}
    return [_masked(item) for item in value] if isinstance(value, list) else value


def _stand_ins(sections: Sections) -> set[str]:
    found: set[str] = set()
    pending: list[Json] = list(sections.values())
    while pending:
        value = pending.pop()
        if is_tagged(value, "$redacted"):
            found.add(str(value["$redacted"]))
        elif isinstance(value, Mapping):
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return found


def _doubt(found: Found) -> str | None:
    if not found.was_captured_before:
        return "not captured in the first run"
    if not found.was_captured_after:
        return "not captured in the second run"
    if is_tagged(found.before, "$failed") or is_tagged(found.after, "$failed"):
        return "could not be read"
    if found.is_in_both and is_tagged(found.before, "$redacted") != is_tagged(
        found.after, "$redacted"
    ):
        return "redacted in one run"
    return None


_ASKED_ANYWHERE: Final[tuple[Rule, ...]] = (places.relocated, secret, catalogued)
_ASKED: Final[Mapping[str, tuple[Rule, ...]]] = {
    section: (places.relocated, secret, *rules, catalogued) for section, rules in RULES.items()
}
