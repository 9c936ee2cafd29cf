"""The page on where two runs part: a picture of all steps, and that one step in detail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from manifest.comparing import WORDS, compare_trails, reason, sentence
from manifest.dense import first_operation, operation_sentence
from manifest.diffing import diff
from manifest.findings import Blobs
from manifest.lanes import State, lanes
from manifest.leaves import OWN
from manifest.models import Divergence, KeptTrail, Manifest, TrailComparison
from manifest.streams import STREAMS
from manifest.summaries import summarize
from manifest.trail import Trail
from manifest.unrepeated import unrepeated
from manifest_server.dependencies import Store, visible
from manifest_server.sqlstore import SqlStore
from manifest_server.trailstore import legible
from manifest_server.web.pictures import BUCKETS, Picture, draw
from manifest_server.web.templating import page
from manifest_server.web.visitors import Visitor

router = APIRouter(include_in_schema=False)

_MOST_PICTURES: Final = 8
_AROUND_STEPS: Final = 20
_MOST_NAMES: Final = 1000
_MOST_DOTS: Final = 15

RunQuery = Annotated[str, Query(max_length=36)]


@dataclass(slots=True)
class Branch:
    """Tensors under one part of their names, which dots divide."""

    name: str
    differing: int = 0
    total: int = 0
    branches: dict[str, Branch] = field(default_factory=dict)

    def count(self, is_differing: bool) -> None:  # noqa: FBT001 -- what is counted
        """Add a tensor."""
        self.total += 1
        self.differing += is_differing


@dataclass(frozen=True, slots=True)
class Tensors:
    """What was kept of the things that a stream digests, at one step."""

    stream: str
    step: int
    tree: Branch
    """Of those that both runs kept."""
    one_sided: int


@dataclass(frozen=True, slots=True)
class AtStep:
    """A stream at the step where two runs part."""

    stream: str
    state: State
    digests: Sequence[str]
    """The beginning of that of each run, empty where it saw nothing."""


@dataclass(frozen=True, slots=True)
class Parting:
    """All that the trails of two runs tell of where they part."""

    comparison: TrailComparison
    algorithms: Sequence[str]
    """Those of both runs, where none of their processes has one in common."""
    pictures: Sequence[Picture]
    left_out: int
    """How many processes are not drawn."""
    closeup: Picture | None
    streams: Sequence[AtStep]
    tensors: Sequence[Tensors]
    operation: str


@router.get("/divergence")
def show_divergence(
    request: Request, store: Store, visitor: Visitor, a: RunQuery, b: RunQuery
) -> Response:
    """Where two runs part."""
    before, after = (visible(store, visitor, run_id) for run_id in (a, b))
    kept = [store.trails.list(run_id) for run_id in (a, b)]
    obstacle = _obstacle((a, b), kept)
    parting = _parting(store, a, b, _fingerprint(kept)) if obstacle is None else None
    if parting is not None:
        obstacle = _unlike(parting)
    divergence = parting.comparison.divergence if parting is not None else None
    return page(
        request,
        "divergence.html",
        runs=[summarize(run, store.get_verdict(run.id)) for run in (before, after)],
        original=after.id if before.replay_of == after.id else before.id,
        obstacle=obstacle,
        parting=parting,
        divergence=divergence,
        said="" if parting is None else sentence(parting.comparison),
        reason="" if divergence is None else reason(divergence),
        explanations=[]
        if divergence is None
        else _explanations(before, after, divergence, store.blobs.text),
        names={stream: words.removeprefix("the ") for stream, words in WORDS.items()},
        streams=STREAMS,
    )


@dataclass(frozen=True, slots=True)
class _Obstacle:
    """Why there is nothing to compare."""

    what: str
    why: str
    lacking: Sequence[str] = ()
    """The runs that have no trail."""


def _obstacle(ids: Sequence[str], kept: Sequence[Sequence[KeptTrail]]) -> _Obstacle | None:
    """Why there is no pair of trails."""
    lacking = [run_id for run_id, trails in zip(ids, kept, strict=True) if not trails]
    if lacking:
        return _Obstacle(
            "Neither run has a trail here" if len(lacking) == 2 else "One run has no trail here",
            "A trail holds the fingerprints of every step. A run has none where no step of a "
            "training was seen, or where its trail has not come here yet.",
            lacking,
        )
    first, second = ({trail.process for trail in trails} for trails in kept)
    if not first & second:
        return _Obstacle(
            "The runs have no process in common",
            f"One trained in {_listed(first)}, the other in {_listed(second)}: "
            "only the trails of processes of one name are compared.",
        )
    return None


def _unlike(parting: Parting) -> _Obstacle | None:
    """Why none of their fingerprints was compared."""
    if parting.comparison.streams:
        return None
    if parting.algorithms:
        one, other = parting.algorithms
        return _Obstacle(
            "The fingerprints were made in different ways",
            f"One run's by {one}, the other's by {other}: they are never equal. Replay the older "
            "run with this version; the replay compares.",
        )
    return _Obstacle(
        "No fingerprint was taken in both runs",
        "Their trails have no stream in common: what one run observed, the other did not.",
    )


@lru_cache(maxsize=64)
def _parting(store: SqlStore, a: str, b: str, fingerprint: str) -> Parting:  # noqa: ARG001
    # Rows that are kept never change: with as many of them, and the same files, all is the same.
    with legible():
        before, after = store.trails.opened(a), store.trails.opened(b)
        comparison = compare_trails(before, after)
        found = comparison.divergence
        common = sorted(before.keys() & after.keys(), key=lambda name: (len(name), name))
        alike = [name for name in common if before[name].algorithm == after[name].algorithm]
        shared = [name for name in alike if max(before[name].steps, after[name].steps)]
        if found is not None:
            shared.sort(key=lambda name: name != found.process)
        operation = first_operation(before, after)
        return Parting(
            comparison=comparison,
            algorithms=[] if alike else [side[common[0]].algorithm for side in (before, after)],
            pictures=[
                _picture(name, before[name], after[name], found) for name in shared[:_MOST_PICTURES]
            ],
            left_out=len(shared[_MOST_PICTURES:]),
            closeup=_closeup(before, after, found),
            streams=_streams(before, after, found),
            tensors=_tensors(before, after, found),
            operation=operation_sentence(operation) if operation is not None else "",
        )


def _fingerprint(kept: Sequence[Sequence[KeptTrail]]) -> str:
    return "\n".join(trail.model_dump_json() for trails in kept for trail in trails)


def _picture(process: str, before: Trail, after: Trail, found: Divergence | None) -> Picture:
    steps = range(max(before.steps, after.steps))
    parting = found.step if found is not None and found.process == process else None
    return draw(process, before, after, steps, parting=parting)


def _closeup(
    before: Mapping[str, Trail], after: Mapping[str, Trail], found: Divergence | None
) -> Picture | None:
    """The steps around the one where they part, where a cell of the whole picture is of several."""
    if found is None:
        return None
    there, here = before[found.process], after[found.process]
    whole = range(max(there.steps, here.steps))
    if len(whole) <= BUCKETS or found.step not in whole:
        return None
    around = range(found.step - _AROUND_STEPS, found.step + _AROUND_STEPS + 1)
    steps = range(max(around.start, 0), min(around.stop, whole.stop))
    return draw(found.process, there, here, steps, parting=found.step)


def _streams(
    before: Mapping[str, Trail], after: Mapping[str, Trail], found: Divergence | None
) -> list[AtStep]:
    if found is None:
        return []
    sides = before[found.process], after[found.process]
    if found.step >= min(trail.steps for trail in sides):
        return []  # at the end of the process
    states = lanes(*sides, range(found.step, found.step + 1), 1)
    return [
        AtStep(
            stream,
            states[stream][0],
            [(trail.digest(found.step, stream) or b"")[:4].hex() for trail in sides],
        )
        for stream in STREAMS
    ]


def _tensors(
    before: Mapping[str, Trail], after: Mapping[str, Trail], found: Divergence | None
) -> list[Tensors]:
    if found is None:
        return []
    there, here = before[found.process].leaves, after[found.process].leaves
    tensors: list[Tensors] = []
    for kind in (*STREAMS, OWN):
        steps = {*there.steps(kind)} & {*here.steps(kind)}
        step = min((step for step in steps if step >= found.step), default=None)
        if kind == found.stream and found.tensors_step is not None:
            step = found.tensors_step
        if step is not None:
            tensors.append(
                _compared(kind, step, there.at(step, kind) or {}, here.at(step, kind) or {})
            )
    return tensors


def _compared(
    stream: str, step: int, before: Mapping[str, bytes], after: Mapping[str, bytes]
) -> Tensors:
    differs = {name: before[name] != after[name] for name in before if name in after}
    tree = _tree(differs)
    return Tensors(stream, step, tree, one_sided=len(before.keys() ^ after.keys()))


def _tree(differs: Mapping[str, bool]) -> Branch:
    """The names that differ, as far as they fit a page; in their branches all are counted."""
    tree = Branch("")
    for name in [name for name, is_unlike in differs.items() if is_unlike][:_MOST_NAMES]:
        branch = tree
        for part in _parts(name):
            branch = branch.branches.setdefault(part, Branch(part))
    for name, is_unlike in differs.items():
        branch = tree
        branch.count(is_unlike)
        for part in _parts(name):
            if part not in branch.branches:
                break
            branch = branch.branches[part]
            branch.count(is_unlike)
    return _joined(tree)


def _joined(branch: Branch) -> Branch:
    """Have no branch that holds but one other."""
    for name, below in list(branch.branches.items()):
        branch.branches[name] = _joined(below)
    if branch.name and len(branch.branches) == 1:
        (only,) = branch.branches.values()
        if only.total == branch.total:
            only.name = f"{branch.name}.{only.name}"
            return only
    return branch


def _parts(name: str) -> list[str]:
    return name.split(".", _MOST_DOTS)


def _explanations(before: Manifest, after: Manifest, found: Divergence, blobs: Blobs) -> list[str]:
    """What was recorded otherwise, in a sentence, and what no run repeats."""
    said = diff(before, after, blobs=blobs)
    is_explained = any(each.impact in ("certain", "possible") for each in said.differences)
    return [said.conclusion, *unrepeated(before, found, is_explained=is_explained)]


def _listed(names: set[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)[:5])
