"""Where two manifests differ, and whether it matters.

Compared is what can decide the bits of a run, by exact type and value. Left out is what merely
identifies a run: its id, name, times, process ids, status and notes; the run that its entropy was
taken over from; digests that repeat a generator's state; times of change of files; paths that
differ only because the project lies elsewhere. Shown as informational: that other place itself,
names of branches and machines, and files that a run wrote.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, get_args

from manifest.canonical import ABSENT, Json
from manifest.conclusion import conclude
from manifest.findings import DROPPED, Blobs, Found, Judgement, Pair, Sections, is_tagged
from manifest.judging import judge
from manifest.models import SECTIONS, Diff, Difference, Impact, Manifest, Process
from manifest.texts import Texts, shown

__all__ = ["Judged", "conclude", "diff", "diff_sections", "differences", "rank"]

_RANK: Final = {impact: rank for rank, impact in enumerate(get_args(Impact))}
_ORDER: Final = {section: order for order, section in enumerate(SECTIONS)}

_WHOLE_ENTRIES: Final = frozenset(("generators", "inputs", "outputs"))
_KEYED_BY_PATH: Final = (
    ("inputs",),
    ("outputs",),
    ("seeds", "calls"),
    ("seeds", "os_entropy_uses"),
)
# Maps that list all there is: a key that is missing in one of them is absent, not unknown.
_LISTING_ALL: Final = frozenset(
    (
        ("code", "files"),
        ("code", "git.submodules"),
        ("config",),
        ("environment", "packages.origins"),
        ("loaders",),
        ("packages",),
        ("seeds", "draws"),
        ("training", "autocast"),
        ("training", "nondeterministic"),
        ("training",),
        *_KEYED_BY_PATH,
    )
)

# Each of their maps describes an object, which a run had or not.
_OF_OBJECTS: Final = frozenset(("loaders", "training"))

_DEEPEST = 32


class Judged(NamedTuple):
    """A difference that was found and judged; a `Difference` is made of what is handed out."""

    section: str
    key: str
    before: Json
    after: Json
    was_captured_before: bool = True
    was_captured_after: bool = True
    impact: Impact = "unknown"
    reason: str = ""
    source: str = ""
    detail: str = ""


_Path = tuple[str, ...]
_Compared = tuple[_Path, Json, Json]
_NOT_CAPTURED: Final = object()


def diff(before: Manifest, after: Manifest, *, blobs: Blobs | None = None) -> Diff:
    """Find every key on which two runs differ, the most consequential first.

    Exchanging the runs exchanges the values and changes neither keys nor impacts. What a further
    process of a run recorded has its name before the key, as in ``main.x1: torch.num_threads``,
    and is left out where it only repeats what differs anyway.

    Args:
        before: One run.
        after: Another.
        blobs: The bytes of a blob of either run, or None; for differences within text files.
    """
    found, compared = _differences(before, after, Texts(blobs))
    ranked = _ranked(found)
    return Diff(
        before=before.id,
        after=after.id,
        conclusion=conclude(ranked),
        differences=ranked,
        compared=compared,
    )


def differences(
    before: Manifest, after: Manifest, *, blobs: Blobs | None = None
) -> Sequence[Judged]:
    """The same differences in any order, without what changed within their values."""
    found, _ = _differences(before, after, Texts(blobs, is_detailed=False))
    return found


def _differences(before: Manifest, after: Manifest, texts: Texts) -> tuple[list[Judged], int]:
    """Every difference, and how many keys were compared."""
    all_found, compared = _compare(before.sections, after.sections, texts, before.id)
    known = {(each.section, each.key): each for each in all_found}
    for name in sorted(before.processes.keys() | after.processes.keys()):
        found, count = _compare_process(name, before, after, texts)
        all_found += [
            each._replace(key=f"{shown(name)}: {each.key}")
            for each in found
            if not _repeats(each, known.get((each.section, each.key)))
        ]
        compared += count
    return all_found, compared


def diff_sections(
    before: Sections, after: Sections, *, blobs: Blobs | None = None
) -> tuple[Difference, ...]:
    """Compare what two processes recorded, such as two ranks of one run."""
    found, _ = _compare(before, after, Texts(blobs), "")
    return _ranked(found)


def rank(difference: Judged) -> tuple[int, int, str, str]:
    """Where a difference stands: by impact, then in the order in which people read a manifest."""
    order = _ORDER.get(difference.section, len(_ORDER))
    return _RANK[difference.impact], order, difference.section, difference.key


def _ranked(found: Sequence[Judged]) -> tuple[Difference, ...]:
    return tuple(Difference(**each._asdict()) for each in sorted(found, key=rank))


def _repeats(difference: Judged, known: Judged | None) -> bool:
    return known is not None and all(
        _is_same(getattr(difference, name), getattr(known, name))
        for name in ("before", "after", "was_captured_before", "was_captured_after")
    )


def _compare_process(
    name: str, before: Manifest, after: Manifest, texts: Texts
) -> tuple[list[Judged], int]:
    """Compare a process that both runs have, as if it were the run; else say that one lacks it."""
    processes = before.processes.get(name), after.processes.get(name)
    if processes[0] is None or processes[1] is None:
        return [_only_process(*processes)], 1
    if not (processes[0].sections and processes[1].sections):
        return [], 0  # what the first process that trained recorded is the run's own
    return _compare(
        _over(before.sections, processes[0].sections),
        _over(after.sections, processes[1].sections),
        texts,
        before.id,
    )


def _only_process(before: Process | None, after: Process | None) -> Judged:
    has_trained = any(each is not None and each.trail is not None for each in (before, after))
    return Judged(
        section="processes",
        key="recorded",
        before=ABSENT if before is None else True,
        after=ABSENT if after is None else True,
        impact="possible" if has_trained else "informational",
        reason="only one of the runs had this process",
    )


def _over(below: Sections, above: Sections) -> Sections:
    return {
        name: {**_map(below.get(name)), **_map(above.get(name))}
        for name in below.keys() | above.keys()
    }


def _compare(
    before: Sections, after: Sections, texts: Texts, before_id: str
) -> tuple[list[Judged], int]:
    before, after = _prepared(before, after), _prepared(after, before)
    found: list[Found] = []
    compared = 0
    for section in sorted(before.keys() | after.keys()):
        differing, count = _walk(section, before.get(section), after.get(section))
        found += differing
        compared += count
    prefixes = {(each.section, ".".join(each.path[: n + 1])) for each in found for n in range(2)}
    pair = Pair(before, after, before_id, texts.blobs, frozenset(prefixes))
    judged = [(each, judge(each, pair)) for each in found]
    return [
        _judged(each, judgement, texts.detail(each, pair))
        for each, judgement in sorted(judged, key=lambda item: _RANK[item[1].impact])
        if judgement is not DROPPED
    ], compared


def _judged(found: Found, judgement: Judgement, detail: str) -> Judged:
    return Judged(
        section=found.section,
        key=found.key,
        before=found.before,
        after=found.after,
        was_captured_before=found.was_captured_before,
        was_captured_after=found.was_captured_after,
        impact=judgement.impact,
        reason=judgement.reason,
        source=judgement.source,
        detail=detail,
    )


def _prepared(sections: Sections, others: Sections) -> dict[str, dict[str, Json]]:
    """Copy sections with what they say by convention said outright."""
    prepared = {name: dict(_map(section)) for name, section in sections.items()}
    root = prepared.get("command", {}).get("root")
    if isinstance(root, str) and len(root) > 1:
        for section, *keys in _KEYED_BY_PATH:
            _make_relative(prepared, section, keys, root + "/")
    environment = prepared.get("environment", {})
    for key in _map(others.get("environment")):
        # Recorded only where the program changed what it was started with.
        if environment and key.startswith("env_now.") and key not in environment:
            environment[key] = environment.get(key.replace("_now", "", 1), ABSENT)
        # Of those that may matter all are recorded that are set.
        if environment and key.startswith("env."):
            environment.setdefault(key, ABSENT)
    code = prepared.get("code", {})
    if isinstance(code.get("git.tree"), str):
        # Uncommitted changes are recorded where there are any.
        for key in _map(others.get("code")).keys() & {"git.patch", "git.untracked"}:
            code.setdefault(key, ABSENT)
    return prepared


def _make_relative(
    prepared: dict[str, dict[str, Json]], section: str, keys: list[str], root: str
) -> None:
    if not keys and section in prepared:
        prepared[section] = _relative(prepared[section], root)
    for key in keys:
        inner = prepared.get(section, {}).get(key)
        if inner is not None and _is_map(inner):
            prepared[section][key] = _relative(inner, root)


def _relative(paths: Mapping[str, Json], root: str) -> dict[str, Json]:
    # A relative path that is there already keeps its name, and so does its double.
    return {
        path if path.removeprefix(root) in paths else path.removeprefix(root): value
        for path, value in paths.items()
    }


def _walk(section: str, before: Json, after: Json) -> tuple[list[Found], int]:
    """Compare two maps of maps key by key; also count the keys."""
    found: list[Found] = []
    compared = 0
    deepest = 1 if section in _WHOLE_ENTRIES else _DEEPEST
    # A section is a map even if it looks like a stand-in; one that holds nothing was not captured.
    pending = _children(section, (), before or _NOT_CAPTURED, after or _NOT_CAPTURED)
    while pending:
        path, one, other = pending.pop()
        is_object = section in _OF_OBJECTS and len(path) == 1 and _is_of_one(one, other)
        if len(path) < deepest and not is_object and _holds_keys(one, other):
            pending += _children(section, path, one, other)
            continue
        compared += 1
        if not _is_same(one, other):
            found.append(_found(section, path, one, other))
    return found, compared


def _children(section: str, path: _Path, one: Json, other: Json) -> list[_Compared]:
    """The values under each key of two maps, of which one may be missing."""
    lacking = ABSENT if (section, *path) in _LISTING_ALL else _NOT_CAPTURED
    lacks = [_lacked(each, lacking) for each in (one, other)]
    maps = [_map(each) if not path or _is_map(each) else {} for each in (one, other)]
    return [
        ((*path, key), maps[0].get(key, lacks[0]), maps[1].get(key, lacks[1]))
        for key in maps[0].keys() | maps[1].keys()
    ]


def _lacked(holder: Json, lacking: Json) -> Json:
    """What a run says about a key that its map, or what stands in its place, does not hold."""
    if is_tagged(holder, "$absent"):
        return ABSENT
    return lacking if isinstance(holder, dict) else _NOT_CAPTURED


def _holds_keys(one: Json, other: Json) -> bool:
    """Whether to look below: two maps, or one that holds something the other run lacks."""
    if _is_map(one) and _is_map(other):
        return True
    filled = [each for each in (one, other) if _is_map(each) and each]
    return bool(filled) and any(
        each is _NOT_CAPTURED or is_tagged(each, "$absent") for each in (one, other)
    )


def _is_of_one(one: Json, other: Json) -> bool:
    return is_tagged(one, "$absent") != is_tagged(other, "$absent")


def _found(section: str, path: _Path, before: Json, after: Json) -> Found:
    return Found(
        section=shown(section),
        path=path,
        key=shown(".".join(path)),
        before=None if before is _NOT_CAPTURED else before,
        after=None if after is _NOT_CAPTURED else after,
        was_captured_before=before is not _NOT_CAPTURED,
        was_captured_after=after is not _NOT_CAPTURED,
    )


def _is_map(value: Json) -> bool:
    return isinstance(value, dict) and not is_tagged(value)


def _map(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, Mapping) else {}


def _is_same(before: Json, after: Json) -> bool:
    """Whether two plain values are of one type and equal, floats by their bits; to any depth."""
    pending = [(before, after)]
    while pending:
        one, other = pending.pop()
        if one is other:
            continue
        if type(one) is not type(other) or not _is_alike(one, other):
            return False
        if isinstance(one, dict):
            pending += [(value, other[key]) for key, value in one.items()]
        elif isinstance(one, list):
            pending += zip(one, other, strict=True)
    return True


def _is_alike(one: object, other: object) -> bool:
    """Whether two values of one type are equal, apart from what containers hold."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys()
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other)
    if isinstance(one, float):
        return struct.pack("<d", one) == struct.pack("<d", other)
    return one == other
