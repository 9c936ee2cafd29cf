"""The database tables, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)

from manifest.summaries import LABEL_LENGTHS, label

REVISION: Final = "0001"
"""The schema these tables are; the newest migration brings a database to it."""

VERSION_TABLE: Final = "manifest_revision"
"""Not Alembic's default name, so that a database shared with another program is told apart."""


class RunKey(TypeDecorator[str]):
    """A run id as its 16 bytes, which sort as the text does and take less than half the space."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        """Text to bytes."""
        return None if value is None else bytes.fromhex(value.replace("-", ""))

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str | None:
        """Bytes to text."""
        if value is None:
            return None
        text = value.hex()
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


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
    Column("started_at", Label(LABEL_LENGTHS["started_at"]), nullable=False),
    Column("ended_at", Label(LABEL_LENGTHS["ended_at"])),
    Column("command", Label(LABEL_LENGTHS["command"]), nullable=False),
    Column("steps", BigInteger),
    Column("replay_of", RunKey),
    Column("outcome", Label(LABEL_LENGTHS["outcome"])),
    Column("digest", DigestKey),
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

sections = Table(
    "sections",
    metadata,
    Column("digest", DigestKey, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

run_sections = Table(
    "run_sections",
    metadata,
    Column("run_id", RunKey, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("process", Text, primary_key=True),  # '' for the run's own sections
    Column("name", Text, primary_key=True),
    Column("digest", DigestKey, ForeignKey("sections.digest"), nullable=False),
    sqlite_with_rowid=False,
)
