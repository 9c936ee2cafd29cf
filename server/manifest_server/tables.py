"""The database tables, the same on SQLite and PostgreSQL."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, cast

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    Dialect,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    Uuid,
)
from sqlalchemy.types import TypeEngine

from manifest.summaries import LABEL_LENGTHS, label

REVISION: Final = "0013"
"""The schema these tables are; the newest migration brings a database to it."""

VERSION_TABLE: Final = "manifest_revision"
"""Not Alembic's default name, so that a database shared with another program is told apart."""

SHARED: Final = (
    "settings",
    "packages",
    "environment",
    "hardware",
    "code",
    "loaders",
    "inputs",
    "training",
)
"""Sections that many runs have in common: kept once, and referred to from setups."""


class _Bytes(LargeBinary):
    """Bytes as the driver of SQLite takes and gives them, without another object for each."""

    def bind_processor(self, dialect: Dialect) -> None:
        """Give them as they are."""

    def result_processor(self, dialect: Dialect, coltype: object) -> None:
        """Take them as they are."""


class _Sixteen(TypeDecorator[str]):
    """Sixteen bytes: ``uuid`` in PostgreSQL, a blob in SQLite; both sort as their digits do."""

    impl = LargeBinary
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the narrower type where there is one."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(Uuid(as_uuid=True))
        return dialect.type_descriptor(_Bytes(16))

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        """Digits to bytes."""
        if value is None:
            return None
        return _uuid(value) if dialect.name == "postgresql" else _bytes(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        """Bytes to digits."""
        if value is None:
            return None
        return self.shown(value.hex if isinstance(value, uuid.UUID) else value.hex())

    def shown(self, digits: str) -> str:
        """How 32 digits are written."""
        return digits


# A run that comes is written many times at once: its id is beside every term that it has.
@lru_cache
def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("-", ""))


@lru_cache
def _uuid(text: str) -> uuid.UUID:
    return uuid.UUID(text)


class RunKey(_Sixteen):
    """A run id as its 16 bytes, which sort as the text does and take less than half the space."""

    cache_ok = True

    def shown(self, digits: str) -> str:
        """Write digits as a run id."""
        return _written(digits)


class RunKeys(TypeDecorator[list[str]]):
    """Some run ids: an array in PostgreSQL, their bytes one after the other in SQLite."""

    impl = LargeBinary
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the array where there is one."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(ARRAY(Uuid(as_uuid=True)))
        return dialect.type_descriptor(_Bytes())

    def process_bind_param(self, value: list[str] | None, dialect: Dialect) -> Any:
        """Ids to UUIDs, or to bytes."""
        if value is None:
            return None
        if dialect.name == "postgresql":
            return [_uuid(each) for each in value]
        return b"".join(map(_bytes, value))

    def process_result_value(self, value: Any, dialect: Dialect) -> list[str] | None:
        """UUIDs or bytes to ids."""
        if value is None:
            return None
        if dialect.name == "postgresql":
            return [str(each) for each in value]
        digits = value.hex()
        return [_written(digits[start : start + 32]) for start in range(0, len(digits), 32)]


class Numbers(TypeDecorator[list[int]]):
    """Some integers: an array in PostgreSQL, JSON in SQLite, which takes both apart by itself."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the array where there is one."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(ARRAY(BigInteger))
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: list[int] | None, dialect: Dialect) -> Any:
        """Integers to JSON where there is no array."""
        return value if value is None or dialect.name == "postgresql" else json.dumps(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> list[int] | None:
        """JSON to integers."""
        if value is not None and dialect.name != "postgresql":
            value = json.loads(value)
        return cast("list[int] | None", value)


def _written(digits: str) -> str:
    """Digits as a run id."""
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class SectionKey(_Sixteen):
    """The first half of the SHA-256 of what is kept, which tells all the sections there are."""

    cache_ok = True


class DigestKey(TypeDecorator[str]):
    """A digest as its 32 bytes; NULL is the empty digest of a run that is not sealed."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        """Text to bytes."""
        return bytes.fromhex(value[len("sha256:") :]) if value else None

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str:
        """Bytes to text."""
        return "" if value is None else "sha256:" + value.hex()


class Label(TypeDecorator[str]):
    """Text made fit for lists and indexes; the exact text stays in the run's document.

    PostgreSQL refuses NUL in text and long text in an index. Values that are searched for go the
    same way, so a filter finds what was put.
    """

    impl = Text
    cache_ok = True

    def __init__(self, characters: int) -> None:
        self.characters = characters
        super().__init__()

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Replace what cannot be kept and cut what is too long."""
        return label(value, self.characters)


class Moment(TypeDecorator[str]):
    """A moment in UTC as microseconds since 1970; text that is none is kept as NULL."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> int | None:
        """ISO 8601 to microseconds."""
        if value is None:
            return None
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return (moment - _EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: int | None, dialect: Dialect) -> str | None:
        """Microseconds to ISO 8601, always with six digits, so that texts sort as moments do."""
        if value is None:
            return None
        moment = _NAIVE_EPOCH + timedelta(microseconds=value)
        return moment.isoformat(timespec="microseconds") + "Z"  # strftime takes thrice as long


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = _EPOCH.replace(tzinfo=None)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    }
)

runs = Table(
    "runs",
    metadata,
    Column("id", RunKey, primary_key=True),
    Column("project", Label(LABEL_LENGTHS["project"]), nullable=False),
    Column("name", Label(LABEL_LENGTHS["name"])),
    Column("status", Label(LABEL_LENGTHS["status"]), nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Column("command", Label(LABEL_LENGTHS["command"]), nullable=False),
    Column("steps", BigInteger),
    Column("replay_of", RunKey),
    Column("outcome", Label(LABEL_LENGTHS["outcome"])),
    Column("digest", DigestKey),
    Column("setup_key", SectionKey),
    # Last, so that reading a list never walks over them.
    Column("document", LargeBinary, nullable=False),
    Column("verdict", LargeBinary),
)

# An id is made of the time first, so "newest first" is the id read backwards.
Index("ix_runs_project_id", runs.c.project, runs.c.id)
Index("ix_runs_status_id", runs.c.status, runs.c.id)
# Without it both filters walk every finished run in search of a small project.
Index("ix_runs_project_status_id", runs.c.project, runs.c.status, runs.c.id)
_is_replay = runs.c.replay_of.is_not(None)
Index(
    "ix_runs_replay_of_id",
    runs.c.replay_of,
    runs.c.id,
    sqlite_where=_is_replay,
    postgresql_where=_is_replay,
)
# Without the id, as PostgreSQL keeps each key once in an index then.
Index("ix_runs_setup_key", runs.c.setup_key)
_has_name = runs.c.name.is_not(None)
Index("ix_runs_name", runs.c.name, sqlite_where=_has_name, postgresql_where=_has_name)

setups = Table(
    "setups",
    metadata,
    Column("key", SectionKey, primary_key=True),
    Column("project", Label(LABEL_LENGTHS["project"]), nullable=False),
    *(Column(f"{name}_key", SectionKey) for name in SHARED),
    sqlite_with_rowid=False,
)
"""The sections that runs of a project share, together: thousands of runs to a row of this."""

Index("ix_setups_project", setups.c.project)
for _name in SHARED:
    Index(f"ix_setups_{_name}_key", setups.c[f"{_name}_key"])

projects = Table(
    "projects",
    metadata,
    Column("name", Label(LABEL_LENGTHS["project"]), primary_key=True),
    sqlite_with_rowid=False,
)

names = Table(
    "names",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True),
    Column("name", Label(LABEL_LENGTHS["name"]), nullable=False),
)
"""Every name that some run has, once: parts of names are looked for here.

An index of trigrams lies beside it: `NAME_TRIGRAMS` in SQLite, and one of ``pg_trgm`` in PostgreSQL
where the account may have that.
"""

Index("ix_names_name", names.c.name, unique=True)

NAME_TRIGRAMS: Final = "name_trigrams"
"""What SQLite keeps in tables of its own begins with this, too."""

sections = Table(
    "sections",
    metadata,
    Column("key", SectionKey, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

run_sections = Table(
    "run_sections",
    metadata,
    Column("run_id", RunKey, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("process", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("key", SectionKey, ForeignKey("sections.key"), nullable=False),
    sqlite_with_rowid=False,
)
"""What processes other than the first recorded: ranks, workers that train."""

terms = Table(
    "terms",
    metadata,
    # A hash of the others, so that writers need not ask for one.
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    # Of runs, whose values are counted project by project; empty for those of shared sections.
    Column("project", Label(LABEL_LENGTHS["project"]), nullable=False, server_default=""),
    Column("section", Text, nullable=False),
    Column("key", Label(LABEL_LENGTHS["key"]), nullable=False),
    Column("kind", Text, nullable=False),
    Column("value", Label(LABEL_LENGTHS["value"]), nullable=False),
    Column("number", Double),
)
"""Every pair of a key and a value that some run has, once; or once in each project."""

# Both have all that is asked of terms, so that these are not looked at.
Index(
    "ix_terms_section_key_project_value_kind_number_id",
    *(terms.c[name] for name in ("section", "key", "project", "value", "kind", "number", "id")),
)
_is_number = terms.c.number.is_not(None)
Index(
    "ix_terms_section_key_project_number_id",
    *(terms.c[name] for name in ("section", "key", "project", "number", "id")),
    sqlite_where=_is_number,
    postgresql_where=_is_number,
)

section_terms = Table(
    "section_terms",
    metadata,
    Column("term", BigInteger, primary_key=True, autoincrement=False),
    Column("key", SectionKey, primary_key=True),
    sqlite_with_rowid=False,
)
"""Which shared sections hold a pair."""

run_terms = Table(
    "run_terms",
    metadata,
    Column("term", BigInteger, primary_key=True, autoincrement=False),
    Column("run_id", RunKey, primary_key=True),
    # NULL where the row is of one run alone. See `holders`.
    Column("older", RunKeys),
    sqlite_with_rowid=False,
)
"""Which runs have a pair of their own, of their configuration, their seeds, their tags: the newest
of them, and others."""

fresh_terms = Table(
    "fresh_terms",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True),
    Column("run_id", RunKey, nullable=False),
    Column("terms", Numbers, nullable=False),
)
"""The same of runs that came lately, as they came, of pairs that others have; see `gathering`."""

run_annotations = Table(
    "run_annotations",
    metadata,
    Column("run_id", RunKey, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("tags", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("updated_by", Label(LABEL_LENGTHS["name"])),
)
"""What people say of a run afterwards; the manifest itself never changes."""

tokens = Table(
    "tokens",
    metadata,
    Column("id", RunKey, primary_key=True),
    Column("name", Label(LABEL_LENGTHS["name"]), nullable=False),
    Column("digest", DigestKey, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("project", Label(LABEL_LENGTHS["project"])),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment),
    Column("revoked_at", Moment),
    Column("last_used_at", Moment),
)

Index("ix_tokens_digest", tokens.c.digest, unique=True)

audit = Table(
    "audit",
    metadata,
    Column("id", RunKey, primary_key=True),
    Column("at", Moment, nullable=False),
    Column("caller", Label(LABEL_LENGTHS["name"]), nullable=False),
    Column("token_id", RunKey),
    Column("action", Text, nullable=False),
    Column("subject", Label(LABEL_LENGTHS["name"]), nullable=False),
)
"""Who changed what: only ever added to."""

blobs = Table(
    "blobs",
    metadata,
    Column("digest", DigestKey, primary_key=True),
    Column("size", BigInteger, nullable=False),
    # NULL while its bytes are on their way.
    Column("place", Text),
    # NULL while something refers to it, as far as was looked.
    Column("unused_since", Moment),
)
"""Bytes under their SHA-256; `place` is ``database`` (see `blob_pieces`) or ``objects``."""

blob_pieces = Table(
    "blob_pieces",
    metadata,
    Column("digest", DigestKey, ForeignKey("blobs.digest", ondelete="CASCADE"), primary_key=True),
    Column("ordinal", Integer, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
)
"""The bytes of a blob, cut so that nobody needs to hold all of them."""

section_blobs = Table(
    "section_blobs",
    metadata,
    Column("digest", DigestKey, primary_key=True),
    Column("key", SectionKey, primary_key=True),
    sqlite_with_rowid=False,
)
"""Which shared sections refer to a blob."""

run_blobs = Table(
    "run_blobs",
    metadata,
    Column("digest", DigestKey, primary_key=True),
    Column("run_id", RunKey, primary_key=True),
    sqlite_with_rowid=False,
)
"""Which runs refer to a blob in what is their own."""

segments = Table(
    "segments",
    metadata,
    Column("key", SectionKey, primary_key=True),
    Column("node", LargeBinary, nullable=False),  # of `manifest.segments`
    # See `columns`. Kept without compression by PostgreSQL, too: revision 0010 says so.
    Column("body", LargeBinary, nullable=False),
)
"""Rows of trails in pieces of equal length, each kept once."""

trails = Table(
    "trails",
    metadata,
    Column("run_id", RunKey, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("process", Text, primary_key=True),
    Column("header", LargeBinary, nullable=False),
    Column("steps", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)


def _of_a_trail() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["run_id", "process"], ["trails.run_id", "trails.process"], ondelete="CASCADE"
    )


trail_segments = Table(
    "trail_segments",
    metadata,
    Column("run_id", RunKey, primary_key=True),
    Column("process", Text, primary_key=True),
    Column("ordinal", Integer, primary_key=True, autoincrement=False),
    Column("key", SectionKey, ForeignKey("segments.key"), nullable=False),
    _of_a_trail(),
    sqlite_with_rowid=False,
)
"""The rows of a trail: each segment but the last is whole."""

Index("ix_trail_segments_key", trail_segments.c.key)

trail_files = Table(
    "trail_files",
    metadata,
    Column("run_id", RunKey, primary_key=True),
    Column("process", Text, primary_key=True),
    Column("suffix", Text, primary_key=True),
    Column("digest", DigestKey, nullable=False),
    _of_a_trail(),
    sqlite_with_rowid=False,
)
"""What lies beside the rows of a trail, as blobs."""

Index("ix_trail_files_digest", trail_files.c.digest)
