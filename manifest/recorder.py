"""What watches one process of a run, from its first instruction or from a call in its code.

One recorder a process. Everything it does to learn something is guarded: what fails becomes a
note in the manifest, never an exception in the program.
"""

from __future__ import annotations

import atexit
import functools
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from manifest.background import Work, in_background
from manifest.canonical import Json
from manifest.determinism.telling import operations_told
from manifest.environment import launcher
from manifest.filefacts import FileFacts
from manifest.hooks import Hooks
from manifest.importing import when_imported
from manifest.journal import Journal
from manifest.links import Links
from manifest.liveness import identify_process
from manifest.original import original_of
from manifest.packagefacts import PackageFacts
from manifest.restoring import RestoredItem, together
from manifest.rundir import RunDirectory
from manifest.seeding import RecordedSeed
from manifest.snapshotdocs import find_snapshot
from manifest.snapshots import Snapshots, resume
from manifest.surroundings import Surroundings
from manifest.tracking import Tracking
from manifest.training import Training

if TYPE_CHECKING:
    from manifest.pytorch.continuing import Continuing

_MOST_JOURNALS_OF_FORKS = 16
_MOST_INPUTS_AT_ONCE = 32
_BACKGROUND_TIMEOUT_SECONDS = 10
_FOREGROUND_TIMEOUT_SECONDS = 5

_active: Recorder | None = None
_hooks: Hooks | None = None


def active() -> Recorder | None:
    """The recorder of this process, if it is being recorded."""
    return _active


class Recorder:
    """Watches this process and writes what it learns to the run directory."""

    def __init__(self, run: RunDirectory, process: str) -> None:
        """Claim a place in the run; nothing in the process is touched before `start`.

        Args:
            run: Where to write.
            process: The name that this process was given; see `lineage`.

        Raises:
            DamagedRun: The run directory does not say from which entropy to draw.
            OSError: The run directory cannot be written.
        """
        self.run = run
        self.origin = run.origin()
        self.is_over = False
        self.root = Path(self.origin["root"])
        self.process, journal = run.claim(process)
        self._journal: Journal | None = journal
        self.original = original_of(self.origin, self.process, os.environ)
        self.training = Training(self)
        self.tracking = Tracking(
            self, self._recorded_generators, on_tracked=self.training.look_for_generators
        )
        self.snapshots = Snapshots(run, self.tracking, self)
        self.links = Links(self)
        self._continuing: Continuing | None = None
        self.background: list[Work] = []
        self._from_start = True
        self._has_start_settings = False
        self.surroundings = Surroundings(self, run.salt)
        self._file_facts = FileFacts(run, self.root)
        self._package_facts = PackageFacts(self.root, self.section)

    def start(self, *, from_start: bool) -> None:
        """Begin to watch this process.

        Args:
            from_start: Whether the program has not run yet, so that every unseeded source can be
                pinned; else the caller captures those that exist already.
        """
        global _active, _hooks
        _active = self
        self._from_start = from_start
        self.say("process", **identify_process(), rank=launcher.told_rank(os.environ))
        hooks = _hooks or Hooks(note=_note, tell=complain)
        hooks.begin(
            bytes.fromhex(self.origin["entropy"]),
            self.process,
            is_pinning_os=bool(self.origin["pinned_os_entropy"]),
        )
        hooks.watch_files(self.root, self._source_executed, base=self.run.path.parent.parent)
        hooks.watch_seeds(self.root, self)
        hooks.watch_lookups(self.root, self.run.salt, self._variable_asked)
        if _hooks is None:
            _hooks = hooks
            hooks.install(from_start=from_start, on_fork=_forked)
        when_imported("torch", self._torch_imported)
        self._set_as_asked()
        atexit.register(self.finish)

    @property
    def _is_program(self) -> bool:
        # Not a worker or helper that it started: those record no surroundings unless they train.
        return not any(mark in self.process for mark in (".f", ".x"))

    def say(self, kind: str, **fields: Json) -> None:
        """Append an entry to the journal of this process."""
        journal = self._journal_of_this_process()
        if journal is None:
            return
        was_well = journal.failure is None
        journal.append(kind, **fields)
        if was_well and journal.failure is not None and not self.is_over:
            complain(f"recording stopped, the program goes on: {journal.failure}")

    def section(self, name: str, values: dict[str, Json]) -> None:
        """Record facts of one section; later facts lie over earlier ones."""
        if values:
            self.say("section", section=name, values=values)

    def note(self, where: str, what: object) -> None:
        """Record that something could not be done."""
        try:
            text = (
                f"{type(what).__name__}: {what}" if isinstance(what, BaseException) else str(what)
            )
            self.say("note", where=where, what=_without_secrets(text))
        except Exception:  # a broken __str__ is the program's affair
            self.say("note", where=where, what=type(what).__name__)

    @contextmanager
    def guarded(self, where: str) -> Iterator[None]:
        """Keep whatever goes wrong inside away from the program."""
        try:
            yield
        except Exception as error:
            self.note(where, error)

    def take_in_loaded_source(self) -> None:
        """Record the source that ran before anyone listened."""
        if _hooks is not None:
            with self.guarded("code"):
                _hooks.files.take_in_loaded()

    def restored(self, items: Iterable[RestoredItem]) -> None:
        """Record what came of putting something back."""
        for item in items:
            self.say("restore", **item._asdict())

    def begin_with_settings(self, library: str | None = None) -> None:
        """Record the settings that the program begins with; in a replay, put them back first.

        Args:
            library: That has been imported just now; None for all that are there.
        """
        self._has_start_settings = "torch" in sys.modules
        original = self.original
        if original is not None:
            self._restore("settings", lambda: original.restore_settings(library))
        with self.guarded("settings"):
            from manifest.settings import capture_settings

            self.say("start", settings=capture_settings(library=library))

    def restore_generators(self) -> None:
        """In a replay, put back the generators that the program shares."""
        original = self.original
        if original is not None:
            self._restore("generators", original.restore_generators)

    def begin_from(self, entropy: bytes) -> None:
        """Let what is not seeded draw from other entropy from now on."""
        if _hooks is not None:
            _hooks.entropy.renew(entropy, self.process)

    def _set_as_asked(self) -> None:
        original = self.original
        if original is None or not original.is_asked_for_settings:
            return
        self._restore("settings", original.unknown_settings)
        with self.guarded("settings"):
            for library in original.asked_libraries():
                work = functools.partial(original.set_as_asked, library)
                if library:
                    when_imported(library, lambda _, w=work: self._restore("settings", w))  # type: ignore[misc]
                else:
                    self._restore("settings", work)

    def _restore(self, group: str, work: Callable[[], list[RestoredItem]]) -> None:
        try:
            items = together(group, work())
        except Exception as error:
            items = [RestoredItem(group, "failed", f"{type(error).__name__}: {error}")]
        self.restored(items)

    def _recorded_generators(self) -> Mapping[str, Any]:
        # What a program watched from its start makes of another argument is meant so.
        if self.original is None or (self._from_start and self.original.is_changed):
            return {}
        return self.original.generators

    def soon(self, where: str, work: Callable[[], None]) -> None:
        """Do something, and let the program go on where that takes long."""

        # Files lie on disks of all kinds, and one that does not answer must not hold the program.
        def guarded_work() -> None:
            with self.guarded(where):
                work()

        if not Work(guarded_work).join(_FOREGROUND_TIMEOUT_SECONDS):
            late = f"not done within {_FOREGROUND_TIMEOUT_SECONDS} seconds; the program went on"
            self.note(where, late)

    def finish(self, error: str | None = None) -> None:
        """Record the end of the program; what comes later is not recorded."""
        global _active
        if self.is_over:
            return
        for work in self.background:
            if not work.join(_BACKGROUND_TIMEOUT_SECONDS):
                self.note("background", f"not done within {_BACKGROUND_TIMEOUT_SECONDS} seconds")
        if _hooks is not None:
            with self.guarded("finish"):
                self._record_end(_hooks)
            error = error or _hooks.error
            _hooks.end()
        self.say("end", error=None if error is None else _without_secrets(error))
        self.is_over = True
        if self._journal is not None:
            self._journal.close()
        _active = None

    def _record_end(self, hooks: Hooks) -> None:
        self.training.finish_steps()  # first, as it reads what the others let go of
        if self._continuing is not None:
            with self.guarded("snapshots"):
                self._continuing.end()
        self.training.finish_loaders()
        self.tracking.finish()
        # After Ctrl-C nothing is imported any more: dataclasses are made by `exec` of a text, and
        # any such `exec` makes CPython forget that it has to end by the signal.
        if self._is_program and not hooks.was_interrupted:
            self.surroundings.capture()
            self.surroundings.capture_settings()
            if not self.surroundings.has_what_takes_long:
                self.surroundings.capture_what_takes_long()
            self.soon("packages", lambda: self._finish_packages(hooks))
        draws = hooks.entropy.counts()
        within = os.path.join(self.root, "")
        uses = {place.removeprefix(within): n for place, n in hooks.uses.places.items()}
        calls = hooks.seeds.calls()
        self.section("seeds", {"draws": draws, "os_entropy_uses": uses, "calls": calls})
        if self._is_program and (operations := operations_told()):
            self.section("training", {"nondeterministic": operations})
        self.soon("files", lambda: self._record_files(hooks))

    def _torch_imported(self, torch: ModuleType) -> None:
        if not self._has_start_settings:
            self.begin_with_settings("torch")
        if self._from_start and self._is_program:
            self.surroundings.capture()
        self.training.begin()

    def first_step(self) -> None:
        """Record what is settled once training has begun."""
        with self.guarded("rank"):
            self._record_rank()
        self.surroundings.capture()
        self.surroundings.capture_settings()
        self.background.append(in_background(self.surroundings.capture_what_takes_long))
        self.background.append(Work(self._learn_packages))
        if _hooks is not None:
            hooks = _hooks
            # What the program began from, a checkpoint perhaps, it may write over before long.
            first = list(hooks.files.inputs)[:_MOST_INPUTS_AT_ONCE]
            self.soon("inputs", lambda: self._record_inputs(first))
            self.background.append(in_background(lambda: self._record_files(hooks)))
            with self.guarded("seeds"):
                self._record_seeds(_hooks)

    def _learn_packages(self) -> None:
        with self.guarded("packages"):
            self._package_facts.learn()

    def _finish_packages(self, hooks: Hooks) -> None:
        if not self._package_facts.has_begun:
            self._package_facts.learn()
        self._package_facts.finish(is_alone=not hooks.lineage.has_children)

    def _record_seeds(self, hooks: Hooks) -> None:
        seed = sys.modules["torch"].initial_seed()
        self.section("seeds", {"calls": hooks.seeds.calls(), "torch.initial_seed": seed})
        self.section("generators", hooks.noticed.digests(but=self.tracking.ids()))

    def own_generators(self) -> list[tuple[str, object]]:
        """Generators of the program's own whose states belong to each step, by name."""
        named = self.tracking.items()
        known = self.tracking.ids()
        loaders = self.training.loaders
        noticed = _hooks.noticed.living() if _hooks is not None else []
        found = [
            *(loaders.generators() if loaders is not None else ()),
            *(
                (name, each, mine)
                for kind, name, each, mine in noticed
                if kind == "torch.Generator"
            ),
        ]
        # A thread that loads ahead has drawn as often as it came to, which is no difference.
        known |= {id(generator) for _, generator, is_mine in found if not is_mine}
        for name, generator, _ in found:
            if id(generator) not in known:
                known.add(id(generator))
                named.append((name, generator))
        return named

    def named_generators(self) -> Mapping[str, Any]:
        """Those of them that the program has named."""
        return self.tracking.generators()

    def trail_path(self) -> Path | None:
        """Where the trail of this process is to lie."""
        return None if self.is_over else self.run.trail_path(self.process)

    def _record_rank(self) -> None:
        rank = launcher.joined_rank()
        if rank is not None:
            self.say("rank", rank=rank)

    def step(self, loss: object, model: object) -> None:
        """End a training step by hand, where no optimizer of PyTorch does."""
        self.training.step(loss, model)

    def track(self, name: str, value: Any) -> None:
        """Follow a generator, or know a loader by a name; what fails becomes a note."""
        data = sys.modules.get("torch.utils.data")
        if data is None or not isinstance(value, data.DataLoader):
            self.tracking.track(name, value)
        elif (loaders := self.training.loaders) is not None:
            with self.guarded("loaders"):
                loaders.positions.name(value, str(name))

    def name_loader(self, name: str, loader: Any, *, ahead: int) -> None:
        """Know a loader by a name, unless the program has named it; see `Positions.propose`."""
        data = sys.modules.get("torch.utils.data")
        loaders = self.training.loaders
        if data is not None and loaders is not None and isinstance(loader, data.DataLoader):
            with self.guarded("loaders"):
                loaders.positions.propose(loader, name, ahead=ahead)

    def is_underway(self, loader: Any) -> bool:
        """Whether a loader is being iterated."""
        loaders = self.training.loaders
        return loaders is not None and any(
            each.identity.loader() is loader for each in loaders.positions.current()
        )

    def snapshot(
        self, name: str | int | None, *, underway: Collection[Any] | None = None
    ) -> str | None:
        """Keep a snapshot of this process; see `Snapshots.take`.

        Returns:
            The name under which it is kept; None if it could not be.
        """
        with self.guarded("snapshots"):
            training = self.training
            return self.snapshots.take(
                name, step=training.steps, loaders=training.loaders, underway=underway
            )
        return None

    def resume(self, run: RunDirectory, name: str, *, is_strict: bool) -> list[RestoredItem]:
        """Continue where a snapshot of another run was taken.

        Raises:
            ManifestError: The snapshot cannot be found, read or put back.
        """
        rank = launcher.joined_rank()
        rank = launcher.told_rank(os.environ) if rank is None else rank
        snapshot = find_snapshot(run, name, process=self.process, rank=rank)
        self.restored([RestoredItem("snapshot", "pending", f"{run.id}:{name}")])
        items, self._continuing = resume(
            run,
            snapshot,
            tracking=self.tracking,
            loaders=self.training.loaders,
            on_outcome=lambda item: self.restored([item]),
            is_strict=is_strict,
        )
        self.restored(together("state", items))
        return items

    def stop_program(self) -> None:
        """End the program here: a replay has seen what it came to see."""
        self.finish()
        for stream in (sys.stdout, sys.stderr):
            with self.guarded("finish"):
                stream.flush()
        os._exit(0)

    def seed_given(self, place: str, seed: Json, exact: Json) -> None:
        """Record a seed that the program gives; see `seeding`."""
        self.say("seed", place=place, seed=seed, **({} if exact is None else {"exact": exact}))

    def recorded_seed(self, place: str, ordinal: int, path: str) -> RecordedSeed | None:
        """The seed that is recorded of the run that is replayed; see `seeding`."""
        return None if self.original is None else self.original.seed(place, ordinal, path)

    def _variable_asked(self, name: str, value: Json) -> None:
        self.section("environment", {f"asked.{name}": value})

    def _source_executed(self, path: Path) -> None:
        with self.guarded("code"):
            digest = self.run.put_blob(path.read_bytes())
            self.section("code", {"files": {str(path.relative_to(self.root)): digest}})

    def _record_files(self, hooks: Hooks) -> None:
        with self.guarded("outputs"):
            self.section("outputs", self._file_facts.outputs(hooks.files.outputs))
        self._record_inputs(hooks.files.inputs)

    def _record_inputs(self, paths: Iterable[str]) -> None:
        with self.guarded("inputs"):
            self.section("inputs", self._file_facts.inputs(paths))

    def continue_in_fork(self, process: str) -> None:
        """Become the recorder of a forked child, whose journal is opened when it says something."""
        self.process = process
        self._journal = None
        if self.original is not None:
            self.original = self.original.of_fork(process)
        self.background = []
        self._package_facts = PackageFacts(self.root, self.section)
        self.surroundings = Surroundings(self, self.run.salt)

    def _journal_of_this_process(self) -> Journal | None:
        if self.is_over:
            return None
        if self._journal is None and self._may_claim():
            try:
                _, self._journal = self.run.claim(self.process)
            except OSError as error:
                complain(f"recording stopped, the program goes on: {error}")
                self.is_over = True
                return None
            self._journal.append("process", **identify_process())
        return self._journal

    def _may_claim(self) -> bool:
        # A loader forks workers at every epoch: thousands of little journals help nobody.
        ordinal = self.process.rpartition(".f")[2].partition(".")[0]
        return not ordinal.isdigit() or int(ordinal) < _MOST_JOURNALS_OF_FORKS


def complain(what: str) -> None:
    """Say one sentence on the terminal, past anything the program did to its streams."""
    try:
        os.write(2, f"manifest: {what}\n".encode(errors="replace"))
    except OSError:
        pass


def prepare_settings() -> None:
    """Be ready to read settings."""
    from manifest.settings import prepare

    prepare()


def _forked() -> None:
    if _active is not None and _hooks is not None:
        _active.continue_in_fork(_hooks.lineage.name)


def _note(where: str, what: object) -> None:
    if _active is not None:
        _active.note(where, what)


def _without_secrets(text: str) -> str:
    from manifest.environment.redaction import redact_text

    return redact_text(text[:4000])[:1000]
