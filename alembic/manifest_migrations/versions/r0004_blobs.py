"""Blobs, and who refers to them; trails in segments; the training section shared; ranges.

Revision 0004. Training sections of before stay in the documents of their runs.
"""

from __future__ import annotations

import json
import re
import zlib
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SIXTEEN = sa.LargeBinary(16).with_variant(postgresql.UUID(as_uuid=True), "postgresql")
DIGEST = re.compile(rb'"sha256:([0-9a-f]{64})"')
BATCH = 500


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("runs", sa.Column("training_key", SIXTEEN))
    op.create_index("ix_runs_training_key_id", "runs", ["training_key", "id"])
    is_number = sa.text("number IS NOT NULL")
    op.create_index(
        "ix_terms_section_key_number",
        "terms",
        ["section", "key", "number"],
        sqlite_where=is_number,
        postgresql_where=is_number,
    )
    _create_blobs()
    _create_trails()
    _refer_to_blobs()


def downgrade() -> None:
    """Bring the schema back to the revision before; blobs and trails are lost."""
    _put_training_back()
    for table in (
        "trail_files",
        "trail_segments",
        "trails",
        "segments",
        "run_blobs",
        "section_blobs",
        "blob_pieces",
        "blobs",
    ):
        op.drop_table(table)
    op.drop_index("ix_terms_section_key_number", "terms")
    op.drop_index("ix_runs_training_key_id", "runs")
    op.drop_column("runs", "training_key")


def _create_blobs() -> None:
    op.create_table(
        "blobs",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("place", sa.Text()),
        sa.Column("unused_since", sa.BigInteger()),
        sa.PrimaryKeyConstraint("digest", name="pk_blobs"),
    )
    op.create_table(
        "blob_pieces",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("ordinal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "ordinal", name="pk_blob_pieces"),
        sa.ForeignKeyConstraint(
            ["digest"], ["blobs.digest"], name="fk_blob_pieces_digest_blobs", ondelete="CASCADE"
        ),
    )
    for table, column in (("section_blobs", "key"), ("run_blobs", "run_id")):
        op.create_table(
            table,
            sa.Column("digest", sa.LargeBinary(), nullable=False),
            sa.Column(column, SIXTEEN, nullable=False),
            sa.PrimaryKeyConstraint("digest", column, name=f"pk_{table}"),
            sqlite_with_rowid=False,
        )


def _create_trails() -> None:
    op.create_table(
        "segments",
        sa.Column("key", SIXTEEN, nullable=False),
        sa.Column("node", sa.LargeBinary(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_segments"),
    )
    op.create_table(
        "trails",
        sa.Column("run_id", SIXTEEN, nullable=False),
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("header", sa.LargeBinary(), nullable=False),
        sa.Column("steps", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "process", name="pk_trails"),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name="fk_trails_run_id_runs", ondelete="CASCADE"
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "trail_segments",
        sa.Column("run_id", SIXTEEN, nullable=False),
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("ordinal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("key", SIXTEEN, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "process", "ordinal", name="pk_trail_segments"),
        _of_a_trail("trail_segments"),
        sa.ForeignKeyConstraint(["key"], ["segments.key"], name="fk_trail_segments_key_segments"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_trail_segments_key", "trail_segments", ["key"])
    op.create_table(
        "trail_files",
        sa.Column("run_id", SIXTEEN, nullable=False),
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("suffix", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "process", "suffix", name="pk_trail_files"),
        _of_a_trail("trail_files"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_trail_files_digest", "trail_files", ["digest"])


def _of_a_trail(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["run_id", "process"],
        ["trails.run_id", "trails.process"],
        name=f"fk_{table}_run_id_trails",
        ondelete="CASCADE",
    )


def _refer_to_blobs() -> None:
    """Say of sections and runs that are there which blobs they refer to."""
    for source, key, body, target, column in (
        ("sections", "key", "body", "section_blobs", "key"),
        ("runs", "id", "document", "run_blobs", "run_id"),
    ):
        table = sa.table(target, sa.column("digest", sa.LargeBinary), sa.column(column, SIXTEEN))
        for holder, content in _rows(source, key, body):
            # What else has such a digest, as the sections themselves, is never sent as a blob.
            digits = {digits.decode() for digits in DIGEST.findall(_expanded(content))}
            found = [{"digest": bytes.fromhex(each), column: holder} for each in sorted(digits)]
            if found:
                op.bulk_insert(table, found)


def _put_training_back() -> None:
    """Move training sections into the documents of their runs, where they were before."""
    runs = sa.table(
        "runs",
        sa.column("id", SIXTEEN),
        sa.column("document", sa.LargeBinary),
        sa.column("training_key", SIXTEEN),
    )
    sections = sa.table("sections", sa.column("key", SIXTEEN), sa.column("body", sa.LargeBinary))
    connection = op.get_bind()
    both = sa.select(runs.c.id, runs.c.document, sections.c.body)
    for run_id, document, body in connection.execute(
        both.join_from(runs, sections, runs.c.training_key == sections.c.key)
    ).all():
        whole = json.loads(_expanded(document))
        whole["sections"]["training"] = json.loads(_expanded(body))
        text = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        changed = sa.update(runs).where(runs.c.id == run_id)
        connection.execute(changed.values(document=zlib.compress(text.encode(), 1)))


def _rows(source: str, key: str, body: str) -> Any:
    table = sa.table(source, sa.column(key, SIXTEEN), sa.column(body, sa.LargeBinary))
    last = None
    while True:
        statement = sa.select(table.c[key], table.c[body]).order_by(table.c[key]).limit(BATCH)
        if last is not None:
            statement = statement.where(table.c[key] > last)
        found = op.get_bind().execute(statement).all()
        if not found:
            return
        yield from found
        last = found[-1][0]


def _expanded(data: bytes) -> bytes:
    return data if data[:1] == b"{" else zlib.decompress(data)
