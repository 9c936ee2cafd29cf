"""What a difference can do to the bits of a run, where one key alone does not tell.

A rule looks at one difference with both runs at hand and answers with a judgement, with `DROPPED`
(it identifies a run and decides nothing), or with None (the next rule, and at last the catalogue,
is to say). `RULES` lists them by section; each works the same with the runs exchanged.
"""

from __future__ import annotations

import io
import json
import re
import tokenize
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from manifest import catalogue
from manifest.canonical import Digest, Json, checked_digest
from manifest.identity import short_id
from manifest.models import Impact

Sections = Mapping[str, Mapping[str, Json]]
Blobs = Callable[[Digest], bytes | None]

_RANDOMNESS = "https://docs.pytorch.org/docs/stable/notes/randomness.html"
_HASH_SEED = "https://docs.python.org/3/using/cmdline.html#envvar-PYTHONHASHSEED"
_GEOMETRY = "https://github.com/pytorch/pytorch/issues/194676"
_THREADS_MEASURED = "measured on CPU: weights of four models differ between 1 and 2 threads"
_WORKERS_MEASURED = "measured: 0, 1 and 2 workers give one order of samples and other random values"


class Judgement(NamedTuple):
    """What a difference can do, why, and how that is known."""

    impact: Impact
    reason: str
    source: str = ""


DROPPED: Final = Judgement("informational", "not a difference")
"""The answer of a rule for what identifies a run and decides nothing."""


@dataclass(frozen=True, slots=True)
class Found:
    """One key on which two runs do not agree, not judged yet."""

    section: str
    path: tuple[str, ...]
    key: str
    before: Json
    after: Json
    was_captured_before: bool
    was_captured_after: bool

    @property
    def is_in_both(self) -> bool:
        """Whether both runs have a value here, not merely an answer."""
        return not (self._is_lacking(self.before) or self._is_lacking(self.after))

    def _is_lacking(self, value: Json) -> bool:
        return value is None or is_tagged(value, "$absent")


@dataclass(frozen=True)
class Pair:
    """The two runs that a difference lies between, and everything in which they differ."""

    before: Sections
    after: Sections
    before_id: str = ""
    found: Mapping[tuple[str, str], Found] = field(default_factory=dict)
    blobs: Blobs | None = None

    def values(self, section: str, key: str) -> tuple[Json, Json]:
        """What the two runs say about a key; None where it was not captured."""
        return self.before.get(section, {}).get(key), self.after.get(section, {}).get(key)

    def maps(self, section: str, key: str) -> tuple[Mapping[str, Json], Mapping[str, Json]] | None:
        """The two maps under a key, if both runs captured one."""
        before, after = self.values(section, key)
        return (before, after) if isinstance(before, dict) and isinstance(after, dict) else None

    def differs(self, section: str, key: str) -> bool:
        """Whether the runs disagree on a key, or on one below it."""
        return any(s == section and f"{k}.".startswith(f"{key}.") for s, k in self.found)

    def agrees(self, section: str, key: str) -> bool:
        """Whether both runs captured a key, with the same value."""
        return None not in self.values(section, key) and not self.differs(section, key)

    def text(self, digest: Json) -> bytes | None:
        """The bytes of a blob of either run, if they are to be had."""
        if self.blobs is None or not isinstance(digest, str):
            return None
        try:
            return self.blobs(checked_digest(digest))
        except ValueError:
            return None


Rule = Callable[[Found, Pair], Judgement | None]


def judge(found: Found, pair: Pair) -> Judgement:
    """Say what a difference can do to the results, or that it is none (`DROPPED`)."""
    judgement = _judge_value(found, pair)
    lacking = _lacking(found)
    if lacking is None or judgement.impact not in ("certain", "possible"):
        return judgement
    return Judgement("unknown", f"{lacking}. {judgement.reason}", judgement.source)


def is_tagged(value: Json, *tags: str) -> bool:
    """Whether a value is one of the ``$`` forms of `canonical`; of any, without `tags`."""
    if not isinstance(value, dict) or len(value) != 1:
        return False
    (tag,) = value
    return tag in tags if tags else tag.startswith("$")


def _judge_value(found: Found, pair: Pair) -> Judgement:
    for rule in (*RULES.get(found.section, ()), _by_catalogue):
        judgement = rule(found, pair)
        if judgement is not None:
            return judgement
    return _DEFAULTS.get(found.section, _UNKNOWN)


def _lacking(found: Found) -> str | None:
    if not found.was_captured_before:
        return "not captured in the first run, so it is not known whether the runs differ here"
    if not found.was_captured_after:
        return "not captured in the second run, so it is not known whether the runs differ here"
    if is_tagged(found.before, "$failed") or is_tagged(found.after, "$failed"):
        return "could not be read, so it is not known whether the runs differ here"
    if is_tagged(found.before, "$redacted") != is_tagged(found.after, "$redacted"):
        return "one run keeps a redacted value, so it is not known whether the runs differ here"
    return None


def _by_catalogue(found: Found, pair: Pair) -> Judgement | None:
    names = [found.key, re.sub(r"\.\d+(?=\.|$)", "", found.key)]
    for name in dict.fromkeys(names):
        setting = catalogue.lookup(found.section, name)
        if setting is not None:
            return Judgement(setting.impact, setting.reason, setting.source)
    return None


def _root_moved(found: Found, pair: Pair) -> Judgement | None:
    """The project lies elsewhere: paths below it are the same paths."""
    if found.section == "command" and found.key == "root":
        return Judgement("informational", "the project lies in another folder")
    roots = pair.values("command", "root")
    if roots[0] == roots[1] or not all(isinstance(root, str) and len(root) > 1 for root in roots):
        return None
    texts = [_as_text(value) for value in (found.before, found.after)]
    if None in texts:
        return None
    before, after = (_without(text, root) for text, root in zip(texts, roots, strict=True))
    return DROPPED if before == after else None


def _secret(found: Found, pair: Pair) -> Judgement | None:
    """Stand-ins for secrets carry the salt of their run: they only compare under one salt."""
    before, after = _as_text(found.before), _as_text(found.after)
    if not before or not after or '{"$redacted": ' not in before or pair.agrees("seeds", "entropy"):
        return None
    if _without_secrets(before) != _without_secrets(after):
        return None
    return Judgement(
        "unknown", "a secret that neither run keeps, under another salt in each: not comparable"
    )


def _argv(found: Found, pair: Pair) -> Judgement | None:
    if found.key != "argv":
        return None
    return Judgement("possible", "the program was started with other arguments")


def _orig_argv(found: Found, pair: Pair) -> Judgement | None:
    """The interpreter's own command line repeats argv behind its options."""
    if found.key != "orig_argv" or not found.is_in_both:
        return None
    if pair.differs("command", "argv"):
        return Judgement("informational", "restates argv, which differs and is judged on its own")
    return Judgement("possible", "the interpreter was started with other options")


def _executable(found: Found, pair: Pair) -> Judgement | None:
    """A path to an interpreter decides nothing that its version and packages do not."""
    if found.key == "kind":
        return Judgement("informational", "follows from argv")
    if found.key == "cwd":
        return Judgement("possible", "relative paths of the program lead elsewhere")
    if found.key != "executable":
        return None
    if pair.agrees("environment", "python.version"):
        return Judgement(
            "informational", "another path; version and packages are compared on their own"
        )
    return Judgement("possible", "another interpreter, perhaps of another version")


def _source_file(found: Found, pair: Pair) -> Judgement | None:
    if found.path[:1] != ("files",) or len(found.path) < 2:
        return None
    if not found.is_in_both:
        other = pair.maps("code", "files")
        digest = found.after if is_tagged(found.before, "$absent") else found.before
        if other is not None and all(digest in files.values() for files in other):
            return Judgement("informational", "the other run executed the same text elsewhere")
        return Judgement("possible", "only one of the runs executed this file")
    if found.key.endswith(".py") and _is_same_program(found, pair):
        return Judgement("informational", "only comments or layout differ")
    return Judgement("certain", "the runs executed different source")


def _commit(found: Found, pair: Pair) -> Judgement | None:
    """Where the files that ran are known, the revision they came from decides nothing more."""
    if found.key in ("git.branch", "git.remote"):
        return Judgement("informational", "a name of the code, not the code")
    if found.path[:1] == ("files",) or not found.key.startswith("git."):
        return None
    if pair.maps("code", "files") is None:
        return Judgement("possible", "which files the runs executed was not recorded in both")
    if pair.differs("code", "files"):
        return Judgement("informational", "the files that differ are listed on their own")
    return Judgement("informational", "every file that the runs executed is the same")


def _entropy(found: Found, pair: Pair) -> Judgement | None:
    """Another master matters as far as something unseeded was drawn from it."""
    if found.key != "entropy":
        return None
    draws = pair.maps("seeds", "draws")
    cure = f"`manifest run --like {short_id(pair.before_id) or '<id>'}` repeats it"
    if draws is None:
        return Judgement("possible", f"whether the runs drew from it was not recorded; {cure}")
    if not any(_drawn(counts) for counts in draws):
        return Judgement("informational", "neither run drew from it")
    if not all(_drawn(counts) for counts in draws):
        return Judgement("possible", f"only one of the runs drew from it; {cure}")
    if any(map(_is_unseeded, draws, pair.values("seeds", "calls"))):
        reason = "the runs drew their unseeded randomness from different entropy"
        return Judgement("certain", f"{reason}; {cure}", _RANDOMNESS)
    reason = "generators started from different entropy, which matters unless the program seeds"
    return Judgement("possible", f"{reason} them; {cure}", _RANDOMNESS)


def _seeding(found: Found, pair: Pair) -> Judgement | None:
    if found.key == "entropy_from":
        return DROPPED
    if found.key == "hash_seed":
        reason = "matters where the program iterates over sets of strings"
        return Judgement("possible", reason, _HASH_SEED)
    if found.key == "pinned_os_entropy":
        return Judgement("possible", "only one run repeats what it takes from the system's entropy")
    if found.path[:1] == ("draws",):
        return Judgement("possible", "the runs asked for unseeded randomness at different counts")
    if found.path[:1] == ("os_entropy_uses",):
        return Judgement("informational", "a sign that the runs went different ways, not a cause")
    if found.path[:1] == ("calls",):
        return _seeding_call(found, pair)
    return None


def _seeding_call(found: Found, pair: Pair) -> Judgement:
    if found.is_in_both:
        return Judgement("certain", "another seed was given at this place", _RANDOMNESS)
    calls = pair.maps("seeds", "calls")
    if calls is not None and _as_text(list(calls[0].values())) == _as_text(list(calls[1].values())):
        return Judgement("informational", "the same seeds were given, from other lines")
    return Judgement("possible", "only one of the runs gave a seed at this place", _RANDOMNESS)


def _generator(found: Found, pair: Pair) -> Judgement | None:
    if not found.is_in_both:
        return Judgement("possible", "only one of the runs had this generator")
    before, after = found.before, found.after
    if not isinstance(before, dict) or not isinstance(after, dict):
        return None
    if all("state" in entry for entry in (before, after)):
        # A digest repeats the state it stands for.
        texts = [_as_text({**entry, "digest": None}) for entry in (before, after)]
        if texts[0] == texts[1]:
            return DROPPED
    if before.get("kind") != after.get("kind"):
        return Judgement("certain", "another kind of generator draws other numbers", _RANDOMNESS)
    if any(pair.values("seeds", "calls")):
        return Judgement("possible", "matters for what was drawn before the program seeded it")
    return Judgement("certain", "the generator started from another state", _RANDOMNESS)


def _loader(found: Found, pair: Pair) -> Judgement | None:
    field_name = found.path[-1]
    if field_name == "num_workers":
        reason = "random values drawn inside the dataset differ with the number of workers"
        reason += "; the order of samples does not"
        return Judgement("certain", reason, _WORKERS_MEASURED)
    if field_name in ("batch_size", "drop_last"):
        reason = "other batches give other gradients, and another number of steps"
        return Judgement("certain", reason + _joint_batch(found, pair), _RANDOMNESS)
    setting = catalogue.lookup("loaders", f"dataloader.{field_name}")
    return None if setting is None else Judgement(setting.impact, setting.reason, setting.source)


def _joint_batch(found: Found, pair: Pair) -> str:
    worlds = pair.values("settings", "torch.distributed.world_size")
    factors = (found.before, found.after, *worlds)
    if worlds[0] == worlds[1] or not all(type(factor) is int for factor in factors):
        return ""
    if found.before * worlds[0] != found.after * worlds[1]:
        return "; the batch over all ranks differs too"
    return "; the batch over all ranks is the same, but it is summed in another order"


def _world_size(found: Found, pair: Pair) -> Judgement | None:
    if found.key != "torch.distributed.world_size":
        return None
    reason = "each rank sees other samples, and gradients are summed in another order"
    return Judgement("certain", reason, _RANDOMNESS)


def _torch_version(found: Found, pair: Pair) -> Judgement | None:
    """Releases of torch promise nothing to one another; builds of one release differ less."""
    is_torch = found.section == "packages" and found.key == "torch"
    if not (is_torch or found.key == "torch.version") or not found.is_in_both:
        return None
    before, after = (re.split(r"[.+]", str(v)) for v in (found.before, found.after))
    if before[:2] != after[:2]:
        reason = "kernels and defaults change between releases of PyTorch"
        return Judgement("certain", reason, _RANDOMNESS)
    return Judgement("possible", "another build of the same PyTorch release", _RANDOMNESS)


def _package(found: Found, pair: Pair) -> Judgement | None:
    if found.key in _COSMETIC:
        return Judgement("informational", "draws, prints or builds; computes nothing")
    imported = pair.values("code", "imported")
    if all(isinstance(names, list) and found.key not in names for names in imported):
        return Judgement("informational", "installed, but neither run imported it")
    return None


def _variable(found: Found, pair: Pair) -> Judgement | None:
    """A variable and the setting that it becomes."""
    if found.key.startswith("env.MANIFEST_"):
        return DROPPED
    effect = _EFFECTS.get(found.key)
    if effect is None or None in pair.values(effect.section, effect.key):
        return None
    if pair.differs(effect.section, effect.key):
        stated = f"takes effect as {effect.key}, which differs too"
        if effect.is_whole:
            return Judgement("informational", stated)
        general = _by_catalogue(found, pair) or _UNKNOWN
        return general._replace(reason=f"{stated}. {general.reason}")
    stated = f"{effect.key} is the same in both runs"
    if effect.is_whole:
        return Judgement("informational", stated)
    reason = f"{stated}, but other libraries of the program may read the variable"
    return Judgement("possible", reason, _THREADS_MEASURED)


def _machine(found: Found, pair: Pair) -> Judgement | None:
    if found.key == "cpu.count":
        if pair.agrees("settings", "torch.num_threads"):
            return Judgement("informational", "torch.num_threads is the same in both runs")
        return Judgement("possible", "decides how many threads are used", _THREADS_MEASURED)
    if re.fullmatch(r"gpu\.\d+\.(multi_processor_count|max_threads_per_\w+|mig\w*)", found.key):
        reason = "kernels and random numbers depend on the number of multiprocessors"
        return Judgement("certain", reason, _GEOMETRY)
    return None


def _input(found: Found, pair: Pair) -> Judgement | None:
    before, after = found.before, found.after
    if not isinstance(before, dict) or not isinstance(after, dict):
        return None
    if not found.is_in_both:
        return _input_of_one(found, pair)
    contents = _content(before), _content(after)
    if all(contents):
        if contents[0] == contents[1]:
            return DROPPED
        return _changed_input(found, pair, "the runs read different content")
    if before.get("size") != after.get("size") or ("missing" in before) != ("missing" in after):
        return _changed_input(found, pair, "the runs read different content")
    if "missing" in before or before.get("mtime_ns") == after.get("mtime_ns"):
        return DROPPED
    return Judgement("possible", "same size, other time of change; the content was not recorded")


def _input_of_one(found: Found, pair: Pair) -> Judgement:
    facts = found.after if is_tagged(found.before, "$absent") else found.before
    content = _content(facts)
    others = pair.after if facts is found.before else pair.before
    if content and any(content == _content(other) for other in others.get("inputs", {}).values()):
        return Judgement("informational", "the other run read the same content from elsewhere")
    if "missing" in facts:
        return Judgement("informational", "only one of the runs looked for it; it was not there")
    return Judgement("possible", "only one of the runs read it")


def _changed_input(found: Found, pair: Pair, reason: str) -> Judgement:
    if any(found.key in outputs for outputs in (pair.before.get("outputs", {}),
                                                pair.after.get("outputs", {}))):
        return Judgement("possible", f"{reason}, which a run also wrote itself")
    return Judgement("certain", reason)


def _output(found: Found, pair: Pair) -> Judgement | None:
    before, after = found.before, found.after
    if found.is_in_both and isinstance(before, dict) and isinstance(after, dict):
        texts = [_as_text({**facts, "mtime_ns": None}) for facts in (before, after)]
        if texts[0] == texts[1]:
            return DROPPED
    return Judgement("informational", "a result of the run, not a cause")


@dataclass(frozen=True, slots=True)
class _Effect:
    section: str
    key: str
    is_whole: bool = False


_EFFECTS: Final = {
    "env.OMP_NUM_THREADS": _Effect("settings", "torch.num_threads"),
    "env.MKL_NUM_THREADS": _Effect("settings", "torch.num_threads"),
    "env.ATEN_CPU_CAPABILITY": _Effect("settings", "torch.cpu.capability", is_whole=True),
    "env.PYTHONHASHSEED": _Effect("seeds", "hash_seed", is_whole=True),
}
