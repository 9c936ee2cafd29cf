"""Snapshots: all that a run needs, beside the program's own checkpoint, to be continued exactly.

A snapshot holds the state of every generator and, for each loader, what its iterator began from
and how many batches it has delivered. It lies among the blobs of the run, as plain data; the
journal says under which name. The states that an iterator began from are a blob of their own, so
that the snapshots of one epoch share them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from manifest import states
from manifest.canonical import Json, canonical_bytes, checked_digest, plain
from manifest.errors import StateNotRestorable
from manifest.generators import (
    capture_generators,
    is_shared,
    obstacles,
    renew_device_generators,
    restore_generators,
    restore_shared,
)
from manifest.restoring import RestoredItem
from manifest.rundir import RunDirectory
from manifest.snapshotdocs import MOST_SNAPSHOTS, SCHEMA, Document, expect, read_document
from manifest.tracking import Tracking, capture_generator, restore_generator

if TYPE_CHECKING:
    from manifest.pytorch.continuing import Continuing, Place, Recorded
    from manifest.pytorch.loaders import Loaders
    from manifest.pytorch.moments import Moment, Named
    from manifest.pytorch.positions import Position

_LONGEST_NAME = 200


class Listener(Protocol):
    """Whoever writes down what is learnt."""

    def say(self, kind: str, **fields: Json) -> None:
        """Append an entry to the journal."""

    def note(self, where: str, what: object) -> None:
        """Record that something could not be done."""


class Snapshots:
    """Takes the snapshots of one process; the newest few thousand are kept."""

    def __init__(self, run: RunDirectory, tracking: Tracking, listener: Listener) -> None:
        self._run = run
        self._tracking = tracking
        self._listener = listener
        self._names: set[str] = set()
        self._kept: deque[str] = deque()

    def take(
        self,
        name: str | int | None,
        *,
        step: int | None,
        loaders: Loaders | None,
        underway: Collection[Any] | None = None,
    ) -> str:
        """Keep a snapshot of now.

        Args:
            name: See `Run.snapshot`.
            step: How many steps are over.
            loaders: The loaders of this process; None if it has none.
            underway: Those that will be continued where they are; every other one begins anew. By
                default each that is being iterated.

        Returns:
            The name under which it is kept.
        """
        key = self._unique(str(len(self._names) if name is None else name)[:_LONGEST_NAME])
        document = {
            "schema": SCHEMA,
            "name": key,
            "step": step,
            "generators": self._generators(),
            "loaders": [] if loaders is None else self._loaders(loaders, underway),
        }
        # Read first: what is written back is what was read.
        renew_device_generators()
        blob = self._run.put_blob(canonical_bytes(document))
        self._names.add(key)
        self._listener.say("snapshot", name=key, step=step, blob=blob)
        self._kept.append(blob)
        if len(self._kept) > MOST_SNAPSHOTS:
            self._run.drop_blob(checked_digest(self._kept.popleft()))
        return key

    def _unique(self, name: str) -> str:
        key, ordinal = name, 0
        while key in self._names:
            ordinal += 1
            key = f"{name}#{ordinal}"
        return key

    def _generators(self) -> dict[str, Json]:
        found = capture_generators()
        for name, generator in self._tracking.generators().items():
            found[name] = capture_generator(generator)
        return found

    def _loaders(self, loaders: Loaders, underway: Collection[Any] | None) -> list[Json]:
        from manifest.pytorch.identities import ordinal

        known = loaders.positions.known()
        # Of several iterators of a loader, the newest is the one that the program uses.
        newest = {id(each.identity): each for each in loaders.positions.current()}
        found: list[Json] = []
        for identity in known:
            position, loader = newest.get(id(identity)), identity.loader()
            is_over = underway is not None and not any(loader is each for each in underway)
            if position is not None and is_over and not position.iterator()._persistent_workers:
                position = None  # else its workers matter still
            own = identity.own(loader) if loader is not None else identity.known_own
            generators = {} if own is None else own.named()
            if position is None and not generators:
                continue
            entry: Document = {
                "name": identity.name,
                "place": identity.place,
                "ordinal": ordinal(identity, known),
                "shape": identity.shape(loader) if loader is not None else identity.known_shape,
                "generators": {name: capture_generator(each) for name, each in generators.items()},
                "position": None if position is None else self._position(position, is_over=is_over),
                **self._state_dict(loader, None if is_over else position),
            }
            found.append(entry)
        return found

    def _position(self, position: Position, *, is_over: bool) -> Json:
        from manifest.pytorch.positions import last_index_of

        refusal = position.refusal(is_over=is_over)
        iterator: Any = position.iterator()
        return {
            "count": iterator._num_yielded,
            "base_seed": str(iterator._base_seed),
            "epoch": position.epoch,
            "began": self._moment(position.began),
            "first": None if position.first is None else self._moment(position.first),
            "ahead": min(position.identity.ahead, iterator._num_yielded),
            "before": [self._moment(each) for each in position.before],
            "last_index": last_index_of(iterator),
            "refusal": refusal,
        }

    def _moment(self, moment: Moment) -> str:
        if moment.blob is None:
            states_then = {"generators": moment.generators, "own": moment.own}
            moment.blob = self._run.put_blob(canonical_bytes(plain(states_then)))
        return moment.blob

    def _state_dict(self, loader: Any, position: Position | None) -> Document:
        if position is None or not hasattr(type(loader), "state_dict"):
            return {}
        from manifest.pytorch.statedicts import encoded_state_dict

        try:
            # Of the iterator that there is: without one, asking would make one.
            iterator: Any = position.iterator()
            return {"state_dict": encoded_state_dict(iterator.state_dict())}
        except Exception as error:
            self._listener.note("snapshots", f"{position.identity}: {error}")
            return {}


def resume(
    run: RunDirectory,
    snapshot: Document,
    *,
    tracking: Tracking,
    loaders: Loaders | None,
    on_outcome: Callable[[RestoredItem], None],
    is_strict: bool,
) -> tuple[list[RestoredItem], Continuing | None]:
    """Put the generators back now, and loaders when they are iterated next.

    Args:
        run: The run to continue.
        snapshot: See `find_snapshot`.
        tracking: The generators that this program has named so far.
        loaders: The loaders of this process; None if it has none.
        on_outcome: Told what came of each loader, when it is iterated.
        is_strict: Whether what cannot be continued exactly raises, here or, of a loader, where
            it is iterated.

    Returns:
        What came of each generator and each loader so far, and what continues the loaders.

    Raises:
        StateNotRestorable: A state does not have its form; or something is known already not to
            be continued exactly, and `is_strict`.
    """
    shared = {name: each for name, each in snapshot["generators"].items() if is_shared(name)}
    own = {name: each for name, each in snapshot["generators"].items() if name not in shared}
    _refuse(item for item in obstacles(shared) if is_strict or item.outcome == "failed")
    items: list[RestoredItem] = []
    continuing = None

    def put_back_all() -> None:
        tracking.put_back(own)
        restore_generators(shared)

    if loaders is not None:
        from manifest.pytorch.continuing import Continuing

        waiting = [_recorded(run, snapshot, entry) for entry in snapshot["loaders"]]
        items += [_outlook(each) for each in waiting]
        _refuse(item for item in items if is_strict and not item.is_settled)
        continuing = Continuing(
            loaders,
            waiting,
            put_back_all=put_back_all,
            done=tracking.generators().values(),
            on_outcome=on_outcome,
            is_strict=is_strict,
        )
        continuing.put_back_own()
    items += tracking.put_back(own)
    items += [
        RestoredItem(name, "pending", "when the program tracks it")
        for name in sorted(own.keys() - tracking.generators().keys())
    ]
    items += restore_shared(shared)
    _refuse(item for item in items if is_strict and not item.is_settled)
    if continuing is not None:
        continuing.begin()
    return items, continuing


def _refuse(items: Iterable[RestoredItem]) -> None:
    if reasons := [f"{item.what}: {item.reason}" for item in items]:
        raise StateNotRestorable("; ".join(reasons))


def _outlook(recorded: Recorded) -> RestoredItem:
    if recorded.position is None:
        return RestoredItem(str(recorded), "pending", "its generators, once it is there")
    if recorded.position.refusal is not None and recorded.state_dict is None:
        return RestoredItem(str(recorded), "failed", recorded.position.refusal)
    count = recorded.position.count
    return RestoredItem(
        str(recorded), "pending", f"continues after {count} batches when it is iterated next"
    )


def _recorded(run: RunDirectory, snapshot: Document, entry: Document) -> Recorded:
    from manifest.pytorch.continuing import Recorded

    def put_back_own(present: Named, done: list[Any]) -> None:
        for name, recorded in entry["generators"].items():
            if name not in present:
                raise StateNotRestorable(f"the loader has no generator '{name}' any more")
            if not any(present[name] is generator for generator in done):
                item = restore_generator(name, present[name], recorded)
                if not item.is_settled:
                    raise StateNotRestorable(f"its generator {item}")
                done.append(present[name])

    return Recorded(
        name=entry["name"],
        place=entry["place"],
        ordinal=entry["ordinal"],
        shape=entry["shape"],
        put_back_own=put_back_own,
        at_snapshot={
            **_states(snapshot["generators"], ""),
            **_states(entry["generators"], "its "),
        },
        position=_place(run, entry["position"]),
        state_dict=entry.get("state_dict"),
    )


def _states(entries: Mapping[str, Any], prefix: str) -> dict[str, bytes]:
    return {
        f"{prefix}{name}": states.decoded(name, entry)
        for name, entry in entries.items()
        if _has_bytes(entry.get("state"))
    }


def _has_bytes(state: Any) -> bool:
    # Seeds that wait for a device have no state, and that of some backend could not be read.
    return isinstance(state, dict) and "$bytes" in state


def _place(run: RunDirectory, position: Document | None) -> Place | None:
    if position is None:
        return None
    from manifest.pytorch.continuing import Place

    first = position["first"]
    return Place(
        count=position["count"],
        base_seed=int(position["base_seed"]),
        epoch=position["epoch"],
        began=_moment(run, position["began"]),
        first=None if first is None else _moment(run, first),
        ahead=position.get("ahead", 0),
        before=[_moment(run, each) for each in position.get("before", ())],
        last_index=position.get("last_index"),
        refusal=position["refusal"],
    )


def _moment(run: RunDirectory, digest: Json) -> Moment:
    from manifest.pytorch.moments import Moment

    content = read_document(run, digest)
    parts = []
    for part in ("generators", "own"):
        entries: Any = content.get(part)
        expect(isinstance(entries, dict), f"a map of {part}")
        decoded = ((name, states.decoded(name, {"state": e})) for name, e in entries.items())
        parts.append({name: (bytes, state) for name, state in decoded})
    return Moment(*parts)
