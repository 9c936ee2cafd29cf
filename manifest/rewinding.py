"""Put a living program back to where a recorded run was, as far as that can be done there."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from manifest import recorder
from manifest.canonical import ABSENT, Json
from manifest.errors import NotReplayable, StateNotRestorable
from manifest.generators import capture_generators, is_shared, obstacles, restore_shared
from manifest.identity import short_id
from manifest.inheriting import as_user_made_it
from manifest.origin import RECORD, RUN
from manifest.original import Original
from manifest.restoring import RestoredItem, RestoreReport, counted, together
from manifest.rundir import RunDirectory, find_base, find_run

_HASH_PROBE = "python.hash_probe"


def replay(
    run_id: str,
    *,
    strict: bool = True,
    only: Collection[str] | None = None,
    at: str | int = "start",
) -> RestoreReport:
    """Put this program back to the state in which a recorded run began, or to a snapshot of it.

    Settings first, then generators: those that all code shares now, those of the program's own
    when it tracks them under the names that they had. Call it where the recorded program called
    `manifest.record()`, and after that call if there is one here. What is settled when a process
    starts, such as the hash seed, is compared and told; the command `manifest replay` starts a
    process in which that is as it was, too.

    To continue from a snapshot, call it when the program has loaded its own checkpoint, right
    before it trains on: generators are put back now, and each loader continues where it was when
    it is iterated next. Settings are left as the program sets them.

    Args:
        run_id: The id of the run, or its beginning; or what `Run.snapshot` returned.
        strict: Raise before anything is set if something that can change results cannot be put
            back, and where a loader is iterated that cannot be continued exactly; else the report
            says so, or the manifest.
        only: Keys, names or the beginnings of them, such as ``torch.cpu`` or ``fp32_precision``,
            or ``settings`` and ``generators``; everything else is left alone. Not with a snapshot,
            which is one state.
        at: The name of a snapshot; by default the one that `run_id` says, or else the start.

    Returns:
        What was put back and what was not; `restored` is only said of what was read back, and
        `pending` of what the program has yet to come to.

    Raises:
        RunNotFound: There is no such run.
        AmbiguousReference: Several begin like this.
        NotReplayable: Something cannot be put back to the start, and `strict` is set.
        StateNotRestorable: There is no such snapshot, or something in it cannot be put back.

    Example:
        >>> print(manifest.replay("0199c3f2"))  # doctest: +SKIP
        >>> manifest.replay(checkpoint["manifest"])  # doctest: +SKIP
    """
    if not isinstance(run_id, str):
        raise StateNotRestorable(
            f"expected the id of a run or what `run.snapshot()` returned, found {run_id!r:.80}; "
            "where that is None, the manifest of the run says why no snapshot could be taken"
        )
    reference, is_snapshot, name = run_id.partition(":")
    run = _find(reference)
    if is_snapshot or at != "start":
        return _continue(run, name if at == "start" else str(at), only, is_strict=strict)
    work = _Rewinding(run, only)
    if strict and (obstacles := work.obstacles()):
        raise _refusal(run, obstacles, "nothing was set")
    report = work.carry_out()
    if strict and (failed := work.needed(report.items)):
        raise _refusal(run, failed, f"put back all the same: {counted(report.items)}")
    return report


def _continue(
    run: RunDirectory, name: str, only: Collection[str] | None, *, is_strict: bool
) -> RestoreReport:
    if only is not None:
        raise StateNotRestorable("a snapshot is put back as a whole: expected no `only` with it")
    active = recorder.active()
    if active is None:
        raise StateNotRestorable("this program is not recorded: call `manifest.record()` first")
    return RestoreReport(run.id, active.resume(run, name, is_strict=is_strict))


class _Rewinding:
    """What is put back from one run, and into what."""

    def __init__(self, run: RunDirectory, only: Collection[str] | None) -> None:
        self._run = run
        self._only = only
        self._active = recorder.active()
        document = run.document()
        self._mode = document["mode"]
        self._sections: dict[str, dict[str, Json]] = document["sections"]
        own = self._active.process if self._active is not None else "main"
        self._original = Original(run, own if run.entries_of(own) else "main", {})

    def obstacles(self) -> list[RestoredItem]:
        """What is in the way, as far as that shows before anything is set."""
        from manifest import settings

        shared, _ = self._generators()
        found = settings.obstacles(self._settings()) + obstacles(shared)
        if self._active is None:
            found += self._begin_from_entropy()
        return self.needed([*found, *self._of_the_start()])

    def carry_out(self) -> RestoreReport:
        """Put back what can be."""
        from manifest import settings

        shared, own = self._generators()
        items = settings.restore_settings(self._settings())
        tracked = self._put_back_tracked(own)
        items += tracked
        # Last, since what stands above may run code of libraries.
        items += restore_shared(shared)
        items += self._begin_from_entropy()
        items += self._of_the_start()
        if self._active is not None:
            self._active.restored(together("state", items))
        later = own.keys() - {item.what for item in tracked}
        return RestoreReport(self._run.id, items, sorted(later))

    def needed(self, items: Iterable[RestoredItem]) -> list[RestoredItem]:
        """Of these, what is not as it was recorded and can change results."""
        return [item for item in items if not item.is_settled and self._can_matter(item.what)]

    def _settings(self) -> dict[str, Json]:
        return {
            key: value
            for key, value in self._original.start.items()
            if self._is_wanted("settings", key) and key != _HASH_PROBE
        }

    def _generators(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Those that all code shares, and the program's own."""
        wanted = {
            name: entry
            for name, entry in self._original.generators.items()
            if self._is_wanted("generators", name)
        }
        shared = {name: entry for name, entry in wanted.items() if is_shared(name)}
        # Of those that were only noticed there is a digest and no state.
        own = {name: wanted[name] for name in wanted.keys() - shared.keys()}
        return shared, {name: entry for name, entry in own.items() if "state" in entry}

    def _put_back_tracked(self, own: dict[str, Any]) -> list[RestoredItem]:
        if self._active is not None:
            return self._active.tracking.put_back(own)
        reason = "only what is tracked can be put back: call manifest.record() before this"
        return [RestoredItem(name, "skipped", reason) for name in sorted(own)]

    def _begin_from_entropy(self) -> list[RestoredItem]:
        if self._mode == RUN or not self._is_wanted("generators", "entropy"):
            return []
        if self._active is None:
            reason = "what is not seeded draws from the system: call manifest.record() before this"
            return [RestoredItem("entropy", "skipped", reason)]
        self._active.begin_from(bytes.fromhex(self._run.origin()["entropy"]))
        return [RestoredItem("entropy", "restored")]

    def _of_the_start(self) -> list[RestoredItem]:
        """What a process has from its start, and nothing can change in it."""
        items: list[RestoredItem] = []
        if self._is_wanted("settings", "hash seed"):
            items += self._hash_seed()
        items += self._variables()
        items += [
            RestoredItem(name, "skipped", "the recorded run did not have it yet")
            for name in capture_generators().keys() - self._original.generators.keys()
            if self._mode == RECORD and self._is_wanted("generators", name)
        ]
        if self._mode == RUN and self._is_wanted("generators", "generators"):
            reason = f"they began from entropy that only a new process begins from: {self._command}"
            items.append(RestoredItem("generators", "skipped", reason))
        return items

    def _hash_seed(self) -> Iterator[RestoredItem]:
        from manifest.settings import capture_settings

        recorded = self._sections.get("settings", {}).get(_HASH_PROBE)
        if recorded is None:
            return
        if recorded == capture_settings(library="")[_HASH_PROBE]:
            yield RestoredItem("hash seed", "equal already")
        elif self._is_hash_seed_known:
            yield RestoredItem(
                "hash seed", "skipped", f"only a new process has it: {self._command}"
            )
        else:
            yield RestoredItem("hash seed", "skipped", "it was random, and nothing tells which")

    def _variables(self) -> Iterator[RestoredItem]:
        from manifest.environment import variables

        recorded = self._sections.get("environment", {})
        present = as_user_made_it(variables.read_exec_environ(os.environ))
        for key, value in sorted(recorded.items()):
            name = key.removeprefix("env.")
            if name == key or not variables.is_restorable(name) or name == "PYTHONHASHSEED":
                continue
            if not self._is_wanted("variables", name):
                continue
            if (present.get(name) or ABSENT) == (value or ABSENT):
                yield RestoredItem(name, "equal already")
            else:
                yield RestoredItem(name, "skipped", f"it is read at the start: {self._command}")

    @property
    def _is_hash_seed_known(self) -> bool:
        return str(self._sections.get("seeds", {}).get("hash_seed")).isdigit()

    @property
    def _command(self) -> str:
        return f"`manifest replay {short_id(self._run.id)}`"

    def _is_wanted(self, group: str, name: str) -> bool:
        return self._only is None or any(
            f"{each}." in (f"{group}.", f"{name}."[: len(each) + 1]) for each in self._only
        )

    def _can_matter(self, what: str) -> bool:
        from manifest.catalogue import lookup

        if what == "hash seed":
            return self._is_hash_seed_known
        if what == "entropy":
            draws = self._sections.get("seeds", {}).get("draws")
            return draws is None or any(draws.values())
        known = lookup("settings", what) or lookup("environment", f"env.{what}")
        return known is None or known.impact in ("certain", "possible")


def _find(run_id: str) -> RunDirectory:
    active = recorder.active()
    # A replay runs in a folder of its own, beside which no runs are kept.
    base = find_base() if active is None else active.run.path.parent.parent
    return find_run(base, run_id)


def _refusal(run: RunDirectory, items: Iterable[RestoredItem], what_was_done: str) -> NotReplayable:
    return NotReplayable([f"run {short_id(run.id)}, {what_was_done}", *map(str, items)])
