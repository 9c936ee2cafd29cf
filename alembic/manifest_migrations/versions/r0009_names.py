"""Every name of a run once, with an index of its trigrams, so that parts of names are soon found.

Revision 0009. The index is there where the database can make it: in SQLite with FTS5, in PostgreSQL
with pg_trgm, if the account may have that. Elsewhere names are looked at one after the other.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.exc import DBAPIError

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
HAS_NAME = sa.text("name IS NOT NULL")

TRIGRAMS = """
CREATE VIRTUAL TABLE name_trigrams
USING fts5(name, content = 'names', content_rowid = 'number', tokenize = 'trigram')
"""
# Triggers, so that whoever writes names need not know of it.
TRIGGERS = (
    """
    CREATE TRIGGER name_trigrams_added AFTER INSERT ON names BEGIN
    INSERT INTO name_trigrams (rowid, name) VALUES (new.number, new.name); END
    """,
    """
    CREATE TRIGGER name_trigrams_deleted AFTER DELETE ON names BEGIN
    INSERT INTO name_trigrams (name_trigrams, rowid, name)
    VALUES ('delete', old.number, old.name); END
    """,
)

runs = sa.table("runs", sa.column("name", sa.Text))
names = sa.table("names", sa.column("name", sa.Text))


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "names",
        sa.Column("number", NUMBER, sa.Identity(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_names"),
    )
    if _is_possible("sqlite", TRIGRAMS):
        for statement in TRIGGERS:
            op.execute(statement)
    found = sa.select(runs.c.name).where(runs.c.name.is_not(None)).distinct()
    op.execute(sa.insert(names).from_select(["name"], found))
    op.create_index("ix_names_name", "names", ["name"], unique=True)
    op.create_index(
        "ix_runs_name", "runs", ["name"], sqlite_where=HAS_NAME, postgresql_where=HAS_NAME
    )
    if _is_possible("postgresql", "CREATE EXTENSION IF NOT EXISTS pg_trgm"):
        op.execute("CREATE INDEX ix_name_trigrams ON names USING gin (name gin_trgm_ops)")


def downgrade() -> None:
    """Bring the schema back to the revision before."""
    op.drop_index("ix_runs_name", "runs")
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE IF EXISTS name_trigrams")
    op.drop_table("names")


def _is_possible(dialect: str, statement: str) -> bool:
    """Do what this database may be unable to, or its account not allowed; gives whether it was."""
    connection = op.get_bind()
    if connection.dialect.name != dialect:
        return False
    try:
        with connection.begin_nested():
            op.execute(statement)
    except DBAPIError:
        return False
    return True
