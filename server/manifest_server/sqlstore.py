"""The embedded store: runs in SQLite or PostgreSQL, behind the protocol of `manifest.stores`.

It is an index of run directories and can be built again from them. Its schema is looked after by
`manifest_migrations.upgrade.open_store`, which is how programs open it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

from sqlalchemy import URL, Connection, Engine

from manifest.canonical import Digest
from manifest.errors import ManifestError, RunNotFound, StoreUnusable, TokenNotFound
from manifest.filtering import Field, Filter
from manifest.models import (
    Annotations,
    AuditEntry,
    FacetValue,
    Manifest,
    RunSummary,
    Scope,
    Section,
    Token,
    Verdict,
)
from manifest_server import annotating, auditing, facets, gathering, retention, tallies, tokens
from manifest_server import reading as reading_runs
from manifest_server import runs as queries
from manifest_server.annotating import Remark
from manifest_server.auditing import Change
from manifest_server.blobs import GRACE, mark_unused
from manifest_server.blobstore import Blobs
from manifest_server.database import (
    BUSY_TIMEOUT_SECONDS,
    is_outage,
    location,
    open_engine,
    reading,
    schema_revision,
    transaction,
    turn,
)
from manifest_server.incoming import Incoming, SeenSections
from manifest_server.objects import Objects
from manifest_server.packing import PackedRun, pack_run
from manifest_server.reading import SharedSections
from manifest_server.tables import REVISION
from manifest_server.trailstore import Trails

_ID_DIGITS = re.compile(r"[0-9a-f]{32}")
_MOST_ROWS: Final = 5000  # of a term that are gathered in one transaction
_PREFIX_DIGITS = re.compile(r"[0-9a-f]{0,32}")


class SqlStore:
    """Keeps runs in a SQL database; implements `manifest.stores.Store`."""

    def __init__(self, engine: Engine, objects: Objects | None = None) -> None:
        self._engine = engine
        self._objects = objects
        self.blobs = Blobs(engine, objects)
        self.trails = Trails(engine, self.blobs)
        self._shared = SharedSections()
        self.seen = SeenSections()

    @classmethod
    def open(
        cls,
        url: str | URL,
        *,
        busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS,
        objects: Objects | None = None,
    ) -> SqlStore:
        """Open a database whose schema is the one of this version.

        Args:
            url: Its address.
            busy_timeout_seconds: How long to wait for another process that writes.
            objects: Where the bytes of blobs are kept; in the database by default.

        Raises:
            StoreUnusable: The database cannot be used, or its schema is another.
        """
        with ExitStack() as undo:
            store = undo.enter_context(
                cls(open_engine(url, busy_timeout_seconds=busy_timeout_seconds), objects)
            )
            if not store.is_current():
                raise StoreUnusable(
                    f"the store {store.location} is empty or of an older Manifest. Open it with "
                    "manifest_migrations.upgrade.open_store, which brings it up to date."
                )
            undo.pop_all()
        return store

    @property
    def location(self) -> str:
        """Where the store is, for people: no password."""
        return location(self._engine.url)

    @property
    def backend(self) -> str:
        """Which kind of database it is: ``sqlite`` or ``postgresql``."""
        return self._engine.dialect.name

    def is_current(self) -> bool:
        """Whether the schema is this version's; False where it is older or there is none.

        Raises:
            StoreUnusable: The schema is newer, or the database cannot be read.
        """
        with transaction(self._engine) as connection:
            found = schema_revision(connection)
        if found is not None and found > REVISION:
            raise StoreUnusable(
                f"the store {self.location} has schema {found}; this Manifest knows schemas up to "
                f"{REVISION}. Upgrade with `pip install -U manifest-replay`. Nothing was changed."
            )
        return found == REVISION

    def turn(self) -> AbstractContextManager[None]:
        """The turn to write, for another process that has this one wait for it."""
        return turn(self._engine)

    def close(self) -> None:
        """Give back every connection; the store may not be used after."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def put_run(self, manifest: Manifest, verdict: Verdict | None = None) -> None:
        """Keep a run, replacing what was known of it while it was still running.

        What was known of a run while it ran never replaces the sealed run.

        Raises:
            DamagedRun: The manifest has no canonical form.
            DigestMismatch: A sealed run with this id and another digest is already kept, or a
                section is not what its digest says.
            DigestWrong: The manifest is not what its own digest says.
        """
        self.put_runs([(manifest, verdict)])

    def put_runs(self, runs: Iterable[tuple[Manifest, Verdict | None]]) -> None:
        """Keep many runs in one transaction, or none of them.

        All are held in memory: give many thousands in portions.
        """
        pairs = list(runs)
        # Everything slow is done before the transaction, where nobody waits for it.
        known = self.digests(manifest.id for manifest, _ in pairs)
        news = [manifest for manifest, _ in pairs if _is_news(manifest, known)]
        packed = [pack_run(Incoming.of(manifest)) for manifest in news]
        verdicts = [(manifest.id, verdict) for manifest, verdict in pairs if verdict is not None]
        if not packed and not verdicts:
            return
        with transaction(self._engine, is_writing=True) as connection:
            for _, error in queries.put_runs(connection, packed):
                raise error
            if verdicts:
                queries.put_verdicts(connection, verdicts)

    def put_each(self, given: Sequence[Incoming]) -> list[Exception | None]:
        """Keep runs of several senders in one transaction, but for those that are refused.

        Returns:
            For each run None, or why it is not kept: see `put_run`.

        Raises:
            StoreUnusable: None of them is kept.
        """
        tried = {id(each): _packed(each) for each in given}
        errors = {key: error for key, error in tried.items() if isinstance(error, Exception)}
        packed = {key: run for key, run in tried.items() if isinstance(run, PackedRun)}
        refused = self._put_packed(list(packed.values()))
        errors |= {key: refused[id(run)] for key, run in packed.items() if id(run) in refused}
        self.seen.add({s.digest: s.body for run in packed.values() for s in run.sections.values()})
        return [errors.get(id(each)) for each in given]

    def _put_packed(self, packed: Sequence[PackedRun]) -> dict[int, Exception]:
        """Keep runs, and say by `id` which were refused and why."""
        if not packed:
            return {}
        try:
            with transaction(self._engine, is_writing=True) as connection:
                return {id(run): error for run, error in queries.put_runs(connection, packed)}
        except Exception as error:
            if is_outage(error):
                raise
            if len(packed) == 1:
                return {id(packed[0]): error}
        # One that the database cannot take must not keep the others out.
        found: dict[int, Exception] = {}
        for run in packed:
            found |= self._put_packed([run])
        return found

    def get_run(self, run_id: str) -> Manifest:
        """The whole manifest of one run.

        Raises:
            RunNotFound: No run has this id.
        """
        with self._reading() as connection:
            return reading_runs.get_run(connection, self._known_form(run_id), self._shared)

    def get_runs(self, run_ids: Iterable[str]) -> list[Manifest]:
        """Whole manifests, in the order in which they are asked for.

        Raises:
            RunNotFound: No run has one of these ids.
        """
        known = [self._known_form(run_id) for run_id in run_ids]
        with self._reading() as connection:
            return reading_runs.get_runs(connection, known, self._shared)

    def get_values(
        self, run_ids: Sequence[str], names: Collection[str]
    ) -> dict[str, dict[str, Section]]:
        """Some sections of runs, by run and name; nobody may change what they hold."""
        with self._reading() as connection:
            return reading_runs.get_values(connection, run_ids, names, self._shared)

    def project_of(self, run_id: str) -> str:
        """The project that a run is in.

        Raises:
            RunNotFound: No run has this id.
        """
        with self._reading() as connection:
            return queries.project_of(connection, self._known_form(run_id))

    def known_sections(self, wanted: Mapping[str, str], *, project: str | None = None) -> set[str]:
        """The names of those sections that are kept exactly as their digests say.

        Args:
            wanted: The digest of each, by name.
            project: Only what a run of this project refers to.
        """
        with self._reading() as connection:
            return queries.known_sections(connection, wanted, project=project)

    def get_sections(
        self, wanted: Mapping[str, str], *, project: str | None = None
    ) -> dict[str, bytes]:
        """The canonical bytes of the same, by name.

        Raises:
            DigestMismatch: The bytes of one were changed.
        """
        # What was seen may have been collected since; it is kept anew with whoever refers to it.
        seen = self.seen.get(wanted.values()) if project is None else {}
        found = {name: seen[digest] for name, digest in wanted.items() if digest in seen}
        others = {name: digest for name, digest in wanted.items() if name not in found}
        if others:
            with self._reading() as connection:
                read = queries.get_sections(connection, others, project=project)
            self.seen.add({Digest(wanted[name]): body for name, body in read.items()})
            found |= read
        return found

    def get_verdict(self, run_id: str) -> Verdict | None:
        """The verdict of a replay, or None for any other run."""
        if not _is_id(run_id):
            return None
        with self._reading() as connection:
            return queries.get_verdict(connection, run_id)

    def get_verdicts(self, run_ids: Iterable[str]) -> dict[str, Verdict]:
        """The verdicts on these runs, of those that have one."""
        with self._reading() as connection:
            return queries.get_verdicts(connection, run_ids)

    def get_hardware(self, run_ids: Sequence[str]) -> dict[str, Section]:
        """What these runs ran on, of those that have ended."""
        with self._reading() as connection:
            return reading_runs.get_hardware(connection, run_ids, self._shared)

    def list_runs(
        self,
        *,
        limit: int = 50,
        before: str | None = None,
        project: str | None = None,
        status: str | None = None,
        wanted: Filter | None = None,
    ) -> list[RunSummary]:
        """The newest runs first; `before` continues after the last id of the previous page.

        Raises:
            RunNotFound: `before` is not a run id.
        """
        after_page = None if before is None else self._known_form(before)
        with self._reading() as connection:
            return queries.list_runs(
                connection,
                limit=limit,
                before=after_page,
                project=project,
                status=status,
                wanted=wanted,
            )

    def find_runs(
        self, prefix: str, *, limit: int = 10, project: str | None = None
    ) -> list[RunSummary]:
        """Runs whose id starts with `prefix` (dashes may be left out), newest first."""
        digits = prefix.replace("-", "").lower()
        if not _PREFIX_DIGITS.fullmatch(digits):
            return []
        with self._reading() as connection:
            return queries.find_runs(connection, digits, limit=limit, project=project)

    def list_replays(self, run_id: str) -> list[RunSummary]:
        """Replays of a run, newest first."""
        if not _is_id(run_id):
            return []
        with self._reading() as connection:
            return queries.list_replays(connection, run_id)

    def digests(self, run_ids: Iterable[str], *, project: str | None = None) -> dict[str, str]:
        """The digest kept for each of these runs that is known; '' for one not sealed yet."""
        possible = [run_id for run_id in run_ids if _is_id(run_id)]
        if not possible:
            return {}
        with self._reading() as connection:
            return queries.digests(connection, possible, project=project)

    def list_projects(self) -> list[str]:
        """The names of all projects, in order."""
        with self._reading() as connection:
            return facets.list_projects(connection)

    def list_fields(
        self, prefix: str = "", *, limit: int = 50, project: str | None = None
    ) -> list[str]:
        """Fields that begin with a prefix, attributes first."""
        with self._reading() as connection:
            return facets.list_fields(connection, prefix, limit=limit, project=project)

    def count_values(
        self,
        field: Field,
        *,
        limit: int = 20,
        project: str | None = None,
        wanted: Filter | None = None,
        newest: int | None = None,
    ) -> list[FacetValue]:
        """How many runs have each value of a field, the most frequent first.

        Where `newest` is given, no more than so many of the newest runs are looked at.
        """
        with self._reading() as connection:
            return facets.count_values(
                connection, field, limit=limit, project=project, wanted=wanted, newest=newest
            )

    def tally(
        self,
        names: Sequence[str],
        *,
        newest: int,
        limit: int = 20,
        project: str | None = None,
        wanted: Filter | None = None,
    ) -> dict[str, list[FacetValue]]:
        """How many of the newest runs have each value of some attributes; see `tallies.tally`."""
        with self._reading() as connection:
            return tallies.tally(
                connection, names, newest=newest, limit=limit, project=project, wanted=wanted
            )

    def tally_projects(
        self, *, limit: int, project: str | None = None
    ) -> list[tuple[int, RunSummary]]:
        """How many runs each project has, and the newest of them."""
        with self._reading() as connection:
            return tallies.tally_projects(connection, limit=limit, project=project)

    def get_tags(self, run_ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """The tags of these runs, of those that have any."""
        with self._reading() as connection:
            return annotating.get_tags(connection, run_ids)

    def get_annotations(self, run_id: str) -> Annotations:
        """What was said of a run afterwards; version 0 where nothing was.

        Raises:
            RunNotFound: No run has this id.
        """
        with self._reading() as connection:
            return annotating.get_annotations(connection, self._known_form(run_id))

    def put_annotations(
        self,
        run_id: str,
        said: Annotations,
        *,
        by: str | None = None,
        change: Change | None = None,
    ) -> Annotations:
        """Replace what was said of a run, if it is still of the version that `said` names.

        Args:
            run_id: The run.
            said: The new words.
            by: Who says so.
            change: What is written down of it.

        Raises:
            RunNotFound: No run has this id.
            AnnotationsChanged: Someone else has changed it since.
        """
        (kept,) = self.put_remarks([Remark(self._known_form(run_id), said, by, change)])
        if isinstance(kept, Exception):
            raise kept
        return kept

    def put_remarks(self, remarks: Sequence[Remark]) -> list[Annotations | Exception]:
        """Keep what several callers say in one transaction, but for those who come too late.

        Returns:
            For each remark what is said of its run now, or why that is not it: see
            `put_annotations`.

        Raises:
            StoreUnusable: None of them is kept.
        """
        # What is said of a run twice is said one after the other.
        first = {each.run_id: each for each in reversed(remarks)}
        kept = dict(zip(first, self._put_remarks(list(first.values())), strict=True))
        others = [each for each in remarks if each is not first[each.run_id]]
        later = iter(self.put_remarks(others) if others else ())
        return [kept[e.run_id] if e is first[e.run_id] else next(later) for e in remarks]

    def _put_remarks(self, remarks: Sequence[Remark]) -> Sequence[Annotations | Exception]:
        try:
            with transaction(self._engine, is_writing=True) as connection:
                return annotating.put_remarks(connection, remarks)
        except Exception as error:
            if is_outage(error):
                raise
            if len(remarks) == 1:
                return [error]
        # One that the database cannot take must not keep the others out.
        return [self._put_remarks([each])[0] for each in remarks]

    def delete_run(self, run_id: str) -> None:
        """Forget a run; what only it referred to goes with `collect`.

        Raises:
            RunNotFound: No run has this id.
        """
        with transaction(self._engine, is_writing=True) as connection:
            retention.delete_run(connection, self._known_form(run_id))

    def collect(self, *, grace: timedelta = GRACE) -> int:
        """Delete what nothing refers to any more; gives how many things.

        Args:
            grace: How long blobs are kept all the same, as they come before their run.
        """
        collected = self._collect(retention.collect_setups)
        self._collect(retention.collect_names)
        collected += self._collect(retention.collect_sections)
        collected += self._collect(retention.collect_segments)
        self._collect(retention.collect_terms)
        with transaction(self._engine, is_writing=True) as connection:
            mark_unused(connection)
        self._gather()
        return collected + self._collect(
            lambda connection: retention.collect_blobs(connection, self._objects, grace=grace)
        )

    def _gather(self) -> None:
        with transaction(self._engine, is_writing=True) as connection:
            gathering.put_away(connection)
        last: int | None = None
        while numbers := self._scattered(last):
            while self._gathered(numbers):
                pass
            last = numbers[-1]

    def _scattered(self, last: int | None) -> Sequence[int]:
        with self._reading() as connection:
            return gathering.scattered(connection, after=last)

    def _gathered(self, numbers: Iterable[int]) -> int:
        with transaction(self._engine, is_writing=True) as connection:
            return gathering.gather(connection, numbers, most_rows=_MOST_ROWS)

    def _collect(self, some: Callable[[Connection], int]) -> int:
        collected = 0
        while True:
            with transaction(self._engine, is_writing=True) as connection:
                count = some(connection)
            if not count:
                return collected
            collected += count

    def create_token(
        self,
        *,
        name: str,
        scopes: Sequence[Scope],
        project: str | None = None,
        lifetime: timedelta | None = None,
    ) -> tuple[Token, str]:
        """Make a token; gives what is known of it, and the token itself, which is not kept."""
        with transaction(self._engine, is_writing=True) as connection:
            return tokens.create_token(
                connection, name=name, scopes=scopes, project=project, lifetime=lifetime
            )

    def authenticate(self, secret: str) -> Token | None:
        """The token that a caller shows, if it is valid now; its use is noted."""
        with self._reading() as connection:
            token = tokens.find_token(connection, secret)
        if token is not None and not tokens.is_use_noted(token):
            with transaction(self._engine, is_writing=True) as connection:
                tokens.note_use(connection, token.id)
        return token

    def list_tokens(self) -> list[Token]:
        """What is known of every token, the newest first."""
        with self._reading() as connection:
            return tokens.list_tokens(connection)

    def revoke_token(self, token_id: str) -> None:
        """Let a token be of no use any more.

        Raises:
            TokenNotFound: There is no such token, or it was revoked before.
        """
        if not _is_id(token_id):
            raise TokenNotFound(token_id)
        with transaction(self._engine, is_writing=True) as connection:
            tokens.revoke_token(connection, token_id)

    def put_change(self, change: Change) -> None:
        """Write down that a caller did something."""
        with transaction(self._engine, is_writing=True) as connection:
            auditing.put_changes(connection, [change])

    def list_audit_entries(self, *, limit: int = 50, before: str | None = None) -> list[AuditEntry]:
        """The newest changes first."""
        with self._reading() as connection:
            return auditing.list_entries(connection, limit=limit, before=before)

    def _reading(self) -> AbstractContextManager[Connection]:
        return reading(self._engine)

    def _known_form(self, run_id: str) -> str:
        if _is_id(run_id):
            return run_id
        raise RunNotFound(run_id, self.location)


def _packed(incoming: Incoming) -> PackedRun | Exception:
    try:
        return pack_run(incoming)
    except ManifestError as error:
        return error


def _is_news(manifest: Manifest, known: Mapping[str, str]) -> bool:
    """Whether it is not kept yet as it is; one that goes on may always have grown."""
    return not manifest.digest or manifest.digest != known.get(manifest.id)


def _is_id(text: str) -> bool:
    return _ID_DIGITS.fullmatch(text.replace("-", "")) is not None
