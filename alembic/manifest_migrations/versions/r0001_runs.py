"""Runs, and the sections that they share.

Revision 0001, the first.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema to this revision."""
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


def downgrade() -> None:
    """Bring the schema back to the revision before."""
    op.drop_table("run_sections")
    op.drop_table("sections")
    op.drop_table("runs")
