"""What a difference can do to the bits of a run, where its key alone does not tell.

A rule looks at one difference with both runs at hand and answers with a judgement, with `DROPPED`
(it identifies a run and decides nothing), or with None: then the next rule is asked, and after the
last the catalogue. `RULES` lists them by section. No rule depends on which run comes first.
"""

from __future__ import annotations

import functools
import io
import json
import re
import tokenize
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from manifest import catalogue
from manifest.canonical import Digest, Json, checked_digest
from manifest.identity import short_id
from manifest.models import Impact

Sections = Mapping[str, Mapping[str, Json]]
Blobs = Callable[[Digest], bytes | None]

_RANDOMNESS = "https://docs.pytorch.org/docs/stable/notes/randomness.html"
_THREADS = "measured: four models on a CPU get other weights with 1 thread than with 2"
_LARGEST_PROGRAM_BYTES = 500_000
_LONGEST_KEY = 200  # that is kept in memory; keys come from strangers


class Judgement(NamedTuple):
    """What a difference can do, why, and how that is known."""

    impact: Impact
    reason: str
    source: str = ""


DROPPED: Final = Judgement("informational", "")
"""The answer of a rule for what identifies a run and decides nothing."""

_UNKNOWN = Judgement("unknown", "no rule is known for this key")


@dataclass(frozen=True, slots=True)
class Found:
    """One key on which two runs do not agree, not judged yet."""

    section: str
    path: tuple[str, ...]
    key: str
    before: Json
    after: Json
    was_captured_before: bool = True
    was_captured_after: bool = True

    @property
    def is_in_both(self) -> bool:
        """Whether both runs have a value here, not merely an answer."""
        captured = self.was_captured_before and self.was_captured_after
        return captured and not any(is_tagged(value, "$absent") for value in self.values)

    @property
    def values(self) -> tuple[Json, Json]:
        """Both values, in order."""
        return self.before, self.after


@dataclass(frozen=True)
class Pair:
    """The two runs that a difference lies between, and every key on which they differ."""

    before: Sections
    after: Sections
    before_id: str = ""
    blobs: Blobs | None = None
    differing: frozenset[tuple[str, str]] = field(default=frozenset())

    def values(self, section: str, key: str) -> tuple[Json, Json]:
        """What the runs say about a key; None where it was not captured."""
        return self.before.get(section, {}).get(key), self.after.get(section, {}).get(key)

    def maps(self, section: str, key: str) -> tuple[dict[str, Json], dict[str, Json]] | None:
        """The maps under a key, if both runs captured one."""
        before, after = self.values(section, key)
        return (before, after) if isinstance(before, dict) and isinstance(after, dict) else None

    def differs(self, section: str, key: str) -> bool:
        """Whether the runs disagree on a key of a section, or on one in the map under it."""
        return (section, key) in self.differing

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
    rules = (_relocated, _secret, *RULES.get(found.section, ()), _catalogued)
    answers = (rule(found, pair) for rule in rules)
    judgement = next((answer for answer in answers if answer is not None), _UNKNOWN)
    doubt = _doubt(found)
    if doubt is None or judgement.impact not in ("certain", "possible"):
        return judgement
    reason = f"{doubt}, so whether the runs differ here is not known. {judgement.reason}"
    return Judgement("unknown", reason, judgement.source)


def is_tagged(value: Json, *tags: str) -> bool:
    """Whether a value is one of the ``$`` forms of `canonical`: of these, or of any."""
    if not isinstance(value, dict) or len(value) != 1:
        return False
    (tag,) = value
    return tag in tags if tags else tag.startswith("$")


def _doubt(found: Found) -> str | None:
    if not found.was_captured_before:
        return "not captured in the first run"
    if not found.was_captured_after:
        return "not captured in the second run"
    if any(is_tagged(value, "$failed") for value in found.values):
        return "could not be read"
    if found.is_in_both and is_tagged(found.before, "$redacted") != is_tagged(
        found.after, "$redacted"
    ):
        return "redacted in one run"
    return None


def _catalogued(found: Found, _: Pair) -> Judgement | None:
    """What the catalogue says of the key alone."""
    # What a program set itself is known under the name that it inherited.
    key = re.sub(r"^env_now\.", "env.", found.key)
    look_up = _looked_up if len(key) < _LONGEST_KEY else _looked_up.__wrapped__
    return look_up(found.section, key)


@functools.lru_cache(maxsize=8192)
def _looked_up(section: str, key: str) -> Judgement | None:
    setting = catalogue.lookup(section, key)
    return None if setting is None else Judgement(setting.impact, setting.reason, setting.source)


def _relocated(found: Found, pair: Pair) -> Judgement | None:
    """The project lies in another folder: a path below it is still the same path."""
    before_root, after_root = pair.values("command", "root")
    if before_root == after_root or not (_is_folder(before_root) and _is_folder(after_root)):
        return None
    if (found.section, found.key) == ("command", "root") or not found.is_in_both:
        return None
    before, after = _text(found.before), _text(found.after)
    if before is None or after is None:
        return None
    is_same = _without(before, before_root) == _without(after, after_root)
    return DROPPED if is_same else None


def _is_folder(root: Json) -> bool:
    return isinstance(root, str) and len(root) > 1


def _without(text: str, root: str) -> str:
    written = re.escape((_text(root) or "")[1:-1])
    return re.sub(f"""(?<=["':=, ]){written}(?=["'/:, ])""", "\0", text)


def _secret(found: Found, pair: Pair) -> Judgement | None:
    """The stand-in of a secret is salted by its run: it compares only where the salt is one."""
    is_nested = isinstance(found.before, (dict, list)) and isinstance(found.after, (dict, list))
    if not is_nested or pair.agrees("seeds", "entropy"):
        return None
    before, after = _text(found.before), _text(found.after)
    if before is None or after is None or "$redacted" not in before:
        return None
    if _text(_masked(found.before)) != _text(_masked(found.after)):
        return None
    return Judgement("unknown", "redacted in both runs, each with its own salt: not comparable")


def _masked(value: Json) -> Json:
    if is_tagged(value, "$redacted"):
        return {"$redacted": ""}
    return [_masked(item) for item in value] if isinstance(value, list) else value


def _command(found: Found, pair: Pair) -> Judgement | None:
    """The interpreter's command line repeats the arguments, its path what is installed there."""
    if found.key == "orig_argv" and pair.differs("command", "argv"):
        return Judgement("informational", "repeats argv, which differs and is judged by itself")
    if found.key == "kind":
        return Judgement("informational", "follows from argv")
    return _interpreter_path(pair) if found.key == "executable" else None


def _interpreter(found: Found, pair: Pair) -> Judgement | None:
    """The interpreter says its own paths too."""
    paths = ("python.executable", "python.prefix", "python.base_prefix", "python.path")
    return _interpreter_path(pair) if found.key in paths else None


def _interpreter_path(pair: Pair) -> Judgement | None:
    """Where an interpreter lies decides nothing if it is of one version with the same packages."""
    if not pair.agrees("environment", "python.version") or not pair.before.get("packages"):
        return None
    if any(section == "packages" for section, _ in pair.differing):
        return None
    return Judgement("informational", "another path; Python and all packages are of one version")


def _source_file(found: Found, pair: Pair) -> Judgement | None:
    """Source that a run executed: elsewhere, with other comments, or really another."""
    if found.path[0] != "files" or len(found.path) != 2:
        return None
    if found.is_in_both:
        if found.key.endswith(".py") and _is_same_program(found, pair):
            return Judgement("informational", "only comments, blank lines or spacing differ")
        return None
    files = pair.maps("code", "files")
    if files is not None and all(_only_value(found) in each.values() for each in files):
        return Judgement("informational", "the other run executed the same text under another name")
    return Judgement("possible", "only one of the runs executed this file")


def _only_value(found: Found) -> Json:
    lacks_before = is_tagged(found.before, "$absent") or not found.was_captured_before
    return found.after if lacks_before else found.before


def _is_same_program(found: Found, pair: Pair) -> bool:
    texts = [pair.text(digest) for digest in found.values]
    if not all(text is not None and len(text) <= _LARGEST_PROGRAM_BYTES for text in texts):
        return False
    try:
        before, after = (_tokens(text or b"") for text in texts)
    except (SyntaxError, ValueError, tokenize.TokenError):
        return False
    return before == after


def _tokens(text: bytes) -> list[tuple[int, str]]:
    # By tokens, not by syntax tree: building a tree from a stranger's text can end the process.
    passed_over = (tokenize.COMMENT, tokenize.NL)
    shapeless = (tokenize.INDENT, tokenize.NEWLINE)
    return [
        (token.type, "" if token.type in shapeless else token.string)
        for token in tokenize.tokenize(io.BytesIO(text).readline)
        if token.type not in passed_over
    ]


def _revision(found: Found, pair: Pair) -> Judgement | None:
    """Where the files that ran are known, the revision that they came from adds nothing."""
    files = pair.maps("code", "files")
    if found.key not in ("git.commit", "git.patch", "git.dirty") or not (files and all(files)):
        return None
    if pair.differs("code", "files"):
        return Judgement("informational", "the files that the runs executed are judged one by one")
    return Judgement("informational", "every file that the runs executed is the same")


def _entropy(found: Found, pair: Pair) -> Judgement | None:
    """Another master matters as far as something that nobody seeded was drawn from it."""
    if found.key == "entropy_from":
        return DROPPED
    if found.key != "entropy":
        return None
    cure = f"`manifest run --like {short_id(pair.before_id) or '<id>'}` repeats it"
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


def _drawn(counts: Mapping[str, Json]) -> bool:
    return any(count not in (0, None) for count in counts.values())


def _beyond_start(counts: Mapping[str, Json]) -> bool:
    # One draw gives a library its start state, which programs often seed over. Further ones of
    # `random` mean little: `tempfile` and forked children make unseeded generators too.
    return any(_is_above_one(counts.get(kind)) for kind in ("numpy.random", "torch"))


def _is_above_one(count: Json) -> bool:
    return isinstance(count, int) and count > 1


def _seeding_call(found: Found, pair: Pair) -> Judgement | None:
    """Seeds are noted by place: another place with the same seeds is only edited code."""
    calls = pair.maps("seeds", "calls")
    if found.path[0] != "calls" or found.is_in_both or calls is None:
        return None
    before, after = (Counter(_text(seed) or "" for seed in each.values()) for each in calls)
    if before == after:
        return Judgement("informational", "the same seeds were given, from other places")
    return Judgement("possible", "only one of the runs gave a seed at this place", _RANDOMNESS)


def _generator(found: Found, pair: Pair) -> Judgement | None:
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
    # The digest repeats the state, perhaps by another algorithm.
    texts = [_text({**entry, "digest": None}) for entry in (before, after)]
    return None not in texts and texts[0] == texts[1]


def _batch(found: Found, pair: Pair) -> Judgement | None:
    """The batch of all ranks together is what a step sums over."""
    worlds = pair.values("settings", "torch.distributed.world_size")
    counts = (*found.values, *worlds)
    if found.path[-1] != "batch_size" or not all(type(count) is int for count in counts):
        return None
    known = _catalogued(found, pair) or Judgement("certain", "", _RANDOMNESS)
    if worlds[0] == worlds[1]:
        return known
    is_same = found.before * worlds[0] == found.after * worlds[1]
    joint = "the same, but summed in another order" if is_same else "another too"
    return known._replace(reason=f"{known.reason} Over all ranks the batch is {joint}.".strip())


def _torch(found: Found, _: Pair) -> Judgement | None:
    """Builds and patch releases of one PyTorch differ less than two releases do."""
    names = (("packages", "torch"), ("settings", "torch.version"))
    if (found.section, found.key) not in names or not all(type(v) is str for v in found.values):
        return None
    before, after = (version.split("+")[0].split(".")[:2] for version in found.values)
    if before != after:
        return Judgement("certain", "kernels and defaults change between releases", _RANDOMNESS)
    return Judgement("possible", "another build or patch of the same release", _RANDOMNESS)


def _package(found: Found, pair: Pair) -> Judgement | None:
    """What is installed and never imported computes nothing."""
    imported = pair.values("code", "imported")
    if not all(isinstance(names, list) and found.key not in names for names in imported):
        return None
    return Judgement("informational", "installed, but neither run imported it")


class _Effect(NamedTuple):
    section: str
    key: str
    is_whole: bool


_EFFECTS: Final = {
    "env.ATEN_CPU_CAPABILITY": _Effect("settings", "torch.cpu.capability", is_whole=True),
    "env.MKL_NUM_THREADS": _Effect("settings", "torch.num_threads", is_whole=False),
    "env.OMP_NUM_THREADS": _Effect("settings", "torch.num_threads", is_whole=False),
    "env.PYTHONHASHSEED": _Effect("seeds", "hash_seed", is_whole=True),
    "env.TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": _Effect(
        "settings", "torch.float32_matmul_precision", is_whole=False
    ),
    "env.WORLD_SIZE": _Effect("settings", "torch.distributed.world_size", is_whole=False),
}
"""What some keys become, and whether they become nothing else."""


def _cause(found: Found, pair: Pair) -> Judgement | None:
    """A variable and the setting that it becomes are both kept, and said to be one thing."""
    effect = _EFFECTS.get(found.key)
    if effect is None or None in pair.values(effect.section, effect.key):
        return None
    differs = pair.differs(effect.section, effect.key)
    said = f"{effect.key}, which differs too" if differs else f"{effect.key}, equal in both runs"
    if effect.is_whole:
        return Judgement("informational", f"takes effect as {said}")
    known = _catalogued(found, pair) or _UNKNOWN
    impact: Impact = "possible" if known.impact == "certain" and not differs else known.impact
    return Judgement(impact, f"takes effect as {said}. {known.reason}", known.source)


def _hash_probe(found: Found, pair: Pair) -> Judgement | None:
    """The hash of a string shows the hash seed; alone it tells only of seeds nobody knows."""
    if found.key != "python.hash_probe" or not pair.differs("seeds", "hash_seed"):
        return None
    return Judgement("informational", "follows from hash_seed, which differs too")


def _processors(found: Found, pair: Pair) -> Judgement | None:
    """The number of processors gives the number of threads, which is also recorded."""
    keys = ("cpu.count", "cpu.affinity_count", "process.affinity", "cpu.cores_per_socket")
    if found.key not in keys or not pair.agrees("settings", "torch.num_threads"):
        return None
    return Judgement("informational", "torch.num_threads is equal in both runs", _THREADS)


def _input(found: Found, pair: Pair) -> Judgement | None:
    """A file is its content: place and time decide nothing where the content is known."""
    if not found.is_in_both:
        return _input_of_one(found, pair)
    before, after = found.values
    if not isinstance(before, dict) or not isinstance(after, dict):
        return None
    contents = _content(before), _content(after)
    if None not in contents and _is_comparable(*contents):
        return DROPPED if contents[0] == contents[1] else _another_content(found, pair)
    if before.get("size") != after.get("size") or ("missing" in before) != ("missing" in after):
        return _another_content(found, pair)
    if "missing" in before or before.get("mtime_ns") == after.get("mtime_ns"):
        return DROPPED
    return Judgement("possible", "of one size, changed at other times, its content not recorded")


def _content(facts: Json) -> str | None:
    if not isinstance(facts, dict):
        return None
    digest = facts.get("digest", facts.get("blob"))
    return digest if isinstance(digest, str) else None


def _is_comparable(before: str | None, after: str | None) -> bool:
    algorithms = {(digest or "").rpartition(":")[0] for digest in (before, after)}
    return len(algorithms) == 1


def _another_content(found: Found, pair: Pair) -> Judgement | None:
    if any(found.key in each.get("outputs", {}) for each in (pair.before, pair.after)):
        return Judgement("possible", "the runs read other content, which a run also wrote itself")
    return None


def _input_of_one(found: Found, pair: Pair) -> Judgement:
    facts = _only_value(found)
    content = _content(facts)
    inputs = [each.get("inputs", {}).values() for each in (pair.before, pair.after)]
    if content and all(any(_content(other) == content for other in each) for each in inputs):
        return Judgement("informational", "the other run read the same content from elsewhere")
    if isinstance(facts, dict) and "missing" in facts:
        return Judgement("informational", "only one of the runs looked for it, and found nothing")
    return Judgement("possible", "only one of the runs read it")


def _output(found: Found, _: Pair) -> Judgement | None:
    """What a run wrote is its result."""
    timeless = [
        _text({**facts, "mtime_ns": None}) if isinstance(facts, dict) else None
        for facts in found.values
    ]
    if None not in timeless and timeless[0] == timeless[1]:
        return DROPPED
    return Judgement("informational", "a result of the run, not a cause")


def _text(value: Json) -> str | None:
    """One text for one value; None for what is nested too deep or holds too large a number."""
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    except (RecursionError, TypeError, ValueError):
        return None


RULES: Final[Mapping[str, tuple[Rule, ...]]] = {
    "command": (_command,),
    "code": (_source_file, _revision),
    "settings": (_torch, _hash_probe),
    "seeds": (_entropy, _seeding_call),
    "generators": (_generator,),
    "loaders": (_batch,),
    "packages": (_torch, _package),
    "environment": (_interpreter, _cause, _processors),
    "hardware": (_processors,),
    "inputs": (_input,),
    "outputs": (_output,),
}
"""The rules of each section, in the order in which they are asked."""
