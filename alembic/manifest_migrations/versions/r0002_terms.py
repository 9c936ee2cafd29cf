"""Sections kept once under a shorter key, every pair of key and value searchable, annotations.

Revision 0002. Rows are not carried over: of revision 0001 there are only stores beside run
directories, which are an index and are filled again from them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SHARED = ("settings", "packages", "environment", "hardware", "code", "loaders", "inputs")
SIXTEEN = sa.LargeBinary(16).with_variant(postgresql.UUID(as_uuid=True), "postgresql")


def upgrade() -> None:
    """Bring the schema to this revision."""
    for table in ("run_sections", "sections", "runs"):
        op.drop_table(table)
    _create_runs()
    op.create_table(
        "projects",
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_projects"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "sections",
        sa.Column("key", SIXTEEN, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_sections"),
    )
    op.create_table(
        "run_sections",
        sa.Column("run_id", SIXTEEN, nullable=False),
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key", SIXTEEN, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "process", "name", name="pk_run_sections"),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name="fk_run_sections_run_id_runs", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["key"], ["sections.key"], name="fk_run_sections_key_sections"),
        sqlite_with_rowid=False,
    )
    _create_terms()
    op.create_table(
        "run_annotations",
        sa.Column("run_id", SIXTEEN, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_by", sa.Text()),
        sa.PrimaryKeyConstraint("run_id", name="pk_run_annotations"),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name="fk_run_annotations_run_id_runs", ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    """Bring the schema back to the revision before, without its rows."""
    for table in (
        "run_annotations",
        "run_terms",
        "section_terms",
        "terms",
        "run_sections",
        "sections",
        "projects",
        "runs",
    ):
        op.drop_table(table)
    _create_first_runs()


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", SIXTEEN, nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger()),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("steps", sa.BigInteger()),
        sa.Column("replay_of", SIXTEEN),
        sa.Column("outcome", sa.Text()),
        sa.Column("digest", sa.LargeBinary()),
        *(sa.Column(f"{name}_key", SIXTEEN) for name in SHARED),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("verdict", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
    )
    _create_run_indexes()
    for name in SHARED:
        op.create_index(f"ix_runs_{name}_key_id", "runs", [f"{name}_key", "id"])


def _create_run_indexes() -> None:
    op.create_index("ix_runs_project_id", "runs", ["project", "id"])
    op.create_index("ix_runs_status_id", "runs", ["status", "id"])
    op.create_index("ix_runs_project_status_id", "runs", ["project", "status", "id"])
    op.create_index(
        "ix_runs_replay_of_id",
        "runs",
        ["replay_of", "id"],
        sqlite_where=sa.text("replay_of IS NOT NULL"),
        postgresql_where=sa.text("replay_of IS NOT NULL"),
    )


def _create_terms() -> None:
    op.create_table(
        "terms",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("section", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("number", sa.Double()),
        sa.PrimaryKeyConstraint("id", name="pk_terms"),
    )
    op.create_index("ix_terms_section_key_value", "terms", ["section", "key", "value"])
    for table, column in (("section_terms", "key"), ("run_terms", "run_id")):
        op.create_table(
            table,
            sa.Column("term", sa.BigInteger(), autoincrement=False, nullable=False),
            sa.Column(column, SIXTEEN, nullable=False),
            sa.PrimaryKeyConstraint("term", column, name=f"pk_{table}"),
            sqlite_with_rowid=False,
        )


def _create_first_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Text(), nullable=False),
        sa.Column("ended_at", sa.Text()),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("steps", sa.BigInteger()),
        sa.Column("replay_of", sa.LargeBinary()),
        sa.Column("outcome", sa.Text()),
        sa.Column("digest", sa.LargeBinary()),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("verdict", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
    )
    _create_run_indexes()
    op.create_table(
        "sections",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_sections"),
    )
    op.create_table(
        "run_sections",
        sa.Column("run_id", sa.LargeBinary(), nullable=False),
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "process", "name", name="pk_run_sections"),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name="fk_run_sections_run_id_runs", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["digest"], ["sections.digest"], name="fk_run_sections_digest_sections"
        ),
        sqlite_with_rowid=False,
    )
