"""Record a run from a call in its code."""

from __future__ import annotations

import atexit
import builtins
import functools
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, SupportsIndex, TypeVar, overload

from manifest import inheriting, meeting, recorder
from manifest.background import Work, undisturbed
from manifest.entropy import new_master
from manifest.environment.launcher import capture_given
from manifest.environment.launches import Launch, find_launch
from manifest.environment.redaction import redact_value
from manifest.errors import ManifestError
from manifest.generators import capture_generators
from manifest.identity import new_run_id
from manifest.journal import Journal
from manifest.origin import INTERACTIVE, NOTEBOOK, RECORD, Origin, write_origin
from manifest.recorder import Recorder, complain
from manifest.rundir import RunDirectory, find_base
from manifest.training import import_watchers

_FIRST_MOMENTS_SECONDS = 0.05  # belong to the program: a busy thread would hold it up

P = ParamSpec("P")
R = TypeVar("R")


class Run:
    """A run that is being recorded; also a context manager and a decorator."""

    def __init__(
        self, watching: Recorder | None, *, is_owner: bool, launch: Launch | None = None
    ) -> None:
        self._recorder = watching
        self._is_owner = is_owner
        self._launch = launch

    @property
    def id(self) -> str | None:
        """The id of the run; None when recording is off or could not begin."""
        return self._recorder.run.id if self._recorder is not None else None

    @property
    def path(self) -> Path | None:
        """The run directory."""
        return self._recorder.run.path if self._recorder is not None else None

    def log_config(self, config: Mapping[str, Any]) -> None:
        """Record settings of the program's own; later values replace earlier ones."""
        if self._recorder is not None:
            with self._recorder.guarded("config"):
                self._recorder.section(
                    "config", redact_value("", config, self._recorder.run.salt())
                )

    def step(self, *, loss: object = None, model: object = None) -> None:
        """End a training step, where no optimizer of PyTorch does it.

        Does nothing after a step that an optimizer has ended already.

        Args:
            loss: Of this step; a tensor or a number.
            model: A module, whose parameters and gradients are fingerprinted.
        """
        if self._recorder is not None and not self._recorder.is_over:
            self._recorder.step(loss, model)

    def snapshot(self, name: str | int | None = None) -> str | None:
        """Take note of where the program is, so that it can be continued from here exactly.

        Call it where you save a checkpoint, and save what it returns with it: `manifest.replay`
        takes that. Kept are the states of all generators and, of each loader that is being
        iterated, what its iterator began from and how many batches it has given. It takes less
        than a millisecond and draws nothing. The states of accelerators' generators are written
        back as they were read, as a program that continues will: the dropout of RNNs in cuDNN
        keeps a state of its own, which begins anew with that.

        Args:
            name: What to call it, such as the step; numbered if it is taken or left out.

        Returns:
            The reference of the snapshot, a short text; None if it could not be taken, which is
            noted in the manifest.

        Example:
            >>> torch.save({..., "manifest": run.snapshot(step)}, path)  # doctest: +SKIP
        """
        if self._recorder is None or self._recorder.is_over:
            return None
        taken = self._recorder.snapshot(name)
        return None if taken is None else f"{self._recorder.run.id}:{taken}"

    def track(self, name: str, generator: Any) -> None:
        """Record a generator of the program's own, and put it back when the run is replayed.

        Call it where the generator is ready to be drawn from. It is recorded as it is now; a
        replay of a program that calls `record()` puts it back to that at the same call. What
        cannot be tracked becomes a note in the manifest. A `DataLoader` is known by this name from
        then on, instead of by the place where it was made.

        Args:
            name: What to call it; numbered if it is taken.
            generator: A `random.Random`, a `torch.Generator`, or a `Generator`, `BitGenerator` or
                `RandomState` of NumPy; or a `DataLoader`.

        Example:
            >>> run.track("augmentation", rng)  # doctest: +SKIP
        """
        if self._recorder is not None and not self._recorder.is_over:
            self._recorder.track(name, generator)

    def finish(self, error: str | None = None) -> None:
        """End the run now instead of at the end of the program."""
        if self._recorder is not None and self._is_owner and not self._recorder.is_over:
            self._recorder.finish(error)
            self._seal(self._recorder.run)

    def _seal(self, run: RunDirectory) -> None:
        # Of ranks the last one does it; where one never comes or is killed, whoever reads the run.
        try:
            if self._launch is None or meeting.is_over(run, self._launch):
                run.write_manifest()
                meeting.forget_sealed(run.path.parent.parent)
        except Exception as error:
            complain(f"the manifest of this run cannot be written yet: {error}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.finish(f"{kind.__name__}: {error}"[:1000] if kind is not None else None)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate the function whose end is the end of the run."""

        @functools.wraps(function)
        def recorded(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return function(*args, **kwargs)

        return recorded

    def __repr__(self) -> str:
        return f"<Run {self.id or 'not recorded'}>"


@overload
def record(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def record(
    *,
    project: str | None = None,
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    seed: SupportsIndex | None = None,
    strict: bool = False,
) -> Run: ...
def record(
    function: Callable[P, R] | None = None,
    /,
    *,
    project: str | None = None,
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    seed: SupportsIndex | None = None,
    strict: bool = False,
) -> Run | Callable[P, R]:
    """Record this program from here on.

    Call it first thing, right after the imports: what was drawn before cannot be repeated. Under
    `manifest run` it joins the run that is recorded already. It draws from no generator, changes
    no setting and never raises, unless `strict`; it seeds only where it is given a seed.

    Args:
        function: To be recorded at each call.
        project: What the run belongs to; by default the name of the folder.
        name: A name for people.
        config: Settings of the program's own.
        seed: Seed everything with this once the run is recorded, whether or not it could be: see
            `manifest.determinism.seed_everything`.
        strict: Raise if the run cannot be recorded, instead of saying so once and going on.

    Returns:
        The run; use it as it is, in a `with` block, or as a decorator. Given a function, as in
        ``@manifest.record``, the function recorded at each call.

    Raises:
        ManifestError: The run cannot be recorded, and `strict` is set.
        ArgumentInvalid: Not every library takes the seed.

    Example:
        >>> import manifest
        >>> run = manifest.record(project="digits", config={"lr": 0.1})  # doctest: +SKIP
    """
    if function is not None:
        return _recorded_at_each_call(function)
    if seed is not None:
        from manifest.determinism.seeding import checked_seed

        seed = checked_seed(seed)
    run = _recorded(project, name, seed, is_strict=strict)
    if config is not None:
        run.log_config(config)
    return run


def record_part(command: Sequence[str], *, name: str | None = None) -> Run:
    """Record a part of this program that a command of its own repeats, such as a job of a sweep.

    Under `manifest run` it joins the run that is recorded already, as `record` does.

    Args:
        command: What to start for a replay of this part alone.
        name: A name for people.
    """
    return _recorded(None, name, None, is_strict=False, command=command)


def _recorded(
    project: str | None,
    name: str | None,
    seed: int | None,
    *,
    is_strict: bool,
    command: Sequence[str] | None = None,
) -> Run:
    if os.environ.get("MANIFEST_MODE") == "disabled":
        _seed(seed)
        return Run(None, is_owner=False)
    try:
        return _begin(project, name, seed, command)
    except Exception as error:
        if is_strict:
            raise
        is_known = isinstance(error, (ManifestError, OSError))
        complain(f"this run is not recorded: {error if is_known else repr(error)}")
        _seed(seed)
        return Run(None, is_owner=False)


def _recorded_at_each_call(function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    def recorded(*args: P.args, **kwargs: P.kwargs) -> R:
        with record():
            return function(*args, **kwargs)

    return recorded


def _seed(seed: int | None) -> None:
    if seed is not None:
        from manifest.determinism.seeding import seed_everything

        seed_everything(seed)


def _begin(
    project: str | None, name: str | None, seed: int | None, command: Sequence[str] | None
) -> Run:
    watching = recorder.active()
    if watching is not None:
        watching.say("about", project=project, name=name)
        _seed(seed)
        return Run(watching, is_owner=False)
    generators = capture_generators()
    launch = find_launch(os.environ)
    directory, journal = _given(), None
    if directory is None:
        directory, journal = _joined_or_made(launch, project, name, command)
    watching = Recorder(directory, "main" if launch is None else meeting.process_name(launch))
    watching.section("generators", generators)
    watching.begin_with_settings()
    if watching.original is not None:
        watching.restore_generators()
        watching.section("generators", capture_generators())
    watching.start(from_start=False)
    _let_children_record(watching)
    _work_in_background(watching, journal)
    run = Run(watching, is_owner=True, launch=launch)
    if _is_delivered_at_once():
        _awaited.add(directory)
    atexit.register(run.finish)
    if seed is not None:
        _seed(seed)
        watching.section("generators", capture_generators())  # which nothing has drawn from
    return run


def _given() -> RunDirectory | None:
    # A replay made the directory before it started the program, and learns what takes long.
    path = os.environ.get(inheriting.RUN_DIR)
    return RunDirectory(Path(path)) if path else None


def _joined_or_made(
    launch: Launch | None, project: str | None, name: str | None, command: Sequence[str] | None
) -> tuple[RunDirectory, Journal | None]:
    """The run, and its own journal if it was made here."""
    base = find_base()
    found = meeting.find(base, launch) if launch is not None else None
    if found is not None:
        return found, None
    made, journal = _made(base, launch, project, name, command)
    if launch is None or meeting.offer(base, launch, made):
        return made, journal
    journal.close()
    return _joined_or_made(launch, project, name, command)


def _made(
    base: Path,
    launch: Launch | None,
    project: str | None,
    name: str | None,
    part: Sequence[str] | None,
) -> tuple[RunDirectory, Journal]:
    directory = RunDirectory.create(base, new_run_id())
    _, journal = directory.claim("run")
    command, folder, ranks = list(part or (sys.executable, *sys.orig_argv[1:])), Path.cwd(), None
    if launch is not None and launch.command is not None:
        command, folder, ranks = launch.command, Path(launch.folder or folder), launch.world_size
    origin = Origin(
        mode=RECORD,
        command=command,
        executable=command[0],
        folder=folder,
        entropy=new_master(),
        hash_seed=os.environ.get("PYTHONHASHSEED") or "random",
        project=project or os.environ.get("MANIFEST_PROJECT"),
        name=name,
        ranks=ranks,
        kind=_kind_of_session(),
    )
    write_origin(journal, directory, origin)
    if launch is not None:
        journal.section("environment", capture_given(launch.environ))
        if launch.nodes > 1:
            journal.note("ranks", f"{launch.nodes} machines: each keeps a run of its own ranks")
    return directory, journal


def _kind_of_session() -> str | None:
    if "ipykernel" in sys.modules and hasattr(builtins, "__IPYTHON__"):
        return NOTEBOOK
    return INTERACTIVE if hasattr(sys, "ps1") else None


def _let_children_record(watching: Recorder) -> None:
    # In the C environment alone: spawned workers inherit it, `os.environ` stays as it was.
    variables = inheriting.variables_for(watching.run, watching.process, os.environ)
    for name, value in variables.items():
        os.putenv(name, value)


def _is_delivered_at_once() -> bool:
    is_online = os.environ.get("MANIFEST_MODE", "online") == "online"
    return bool(os.environ.get("MANIFEST_URL")) and is_online


class _Awaited:
    """The runs of this process that its end waits for: one wait, however many there are."""

    def __init__(self) -> None:
        self._owner = 0
        self._runs: list[RunDirectory] = []

    def add(self, run: RunDirectory) -> None:
        if self._owner != os.getpid():  # else it is of the process that this was forked from
            self._owner, self._runs = os.getpid(), []
            # Registered before the end of the first run, and so called after that of all.
            atexit.unregister(self._wait)
            atexit.register(self._wait)
        self._runs.append(run)

    def _wait(self) -> None:
        if self._owner == os.getpid():
            from manifest import shipping

            shipping.await_delivery(self._runs, shipping.longest_wait_seconds(os.environ))


_awaited = _Awaited()


def _work_in_background(watching: Recorder, journal: Journal | None) -> None:
    def work() -> None:
        time.sleep(_FIRST_MOMENTS_SECONDS)
        if _is_delivered_at_once():
            with undisturbed():
                from manifest import shipping

                shipping.start_shipper(watching.run.path.parent.parent, os.environ)
        with undisturbed():
            watching.take_in_loaded_source()
            watching.surroundings.capture()
            from manifest.surveying import survey
        if journal is not None:
            survey(journal, watching.run, watching.root)
            journal.close()

    watching.background.append(Work(work))


# What `record` will need is paid for with the import, in which nobody trains yet; and what the end
# needs, because after Ctrl-C nothing is imported any more.
import manifest.folding  # noqa: E402, F401

if "torch" in sys.modules:
    with suppress(Exception):  # the recorder meets it again, and notes it
        import_watchers()
        recorder.prepare_settings()
