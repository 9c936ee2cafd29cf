"""Terms of runs are of their project, so that an index counts the values of each.

Revision 0006.
"""

from __future__ import annotations

import hashlib
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SIXTEEN = sa.LargeBinary(16).with_variant(postgresql.UUID(as_uuid=True), "postgresql")

runs = sa.table("runs", sa.column("id", SIXTEEN), sa.column("project", sa.Text))
run_terms = sa.table("run_terms", sa.column("term", sa.BigInteger), sa.column("run_id", SIXTEEN))
section_terms = sa.table("section_terms", sa.column("term", sa.BigInteger))
COLUMNS = ("section", "key", "kind", "value", "number")
terms = sa.table(
    "terms",
    sa.column("id", sa.BigInteger),
    sa.column("project", sa.Text),
    *(sa.column(name) for name in COLUMNS),
)
hashes = sa.table("hashes", sa.column("project", sa.Text), sa.column("hash", sa.BigInteger))


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("terms", sa.Column("project", sa.Text(), nullable=False, server_default=""))
    _renumber(hashes.c.project)
    _drop_what_no_section_has(terms.c.project == "")
    op.drop_index("ix_terms_section_key_value", "terms")
    op.create_index(
        "ix_terms_section_key_project_value", "terms", ["section", "key", "project", "value"]
    )


def downgrade() -> None:
    """Bring the schema back to the revision before."""
    _renumber(sa.literal("", sa.Text))
    _drop_what_no_section_has(terms.c.project != "")
    op.drop_index("ix_terms_section_key_project_value", "terms")
    op.drop_column("terms", "project")
    op.create_index("ix_terms_section_key_value", "terms", ["section", "key", "value"])


def _renumber(project: sa.ColumnElement[str]) -> None:
    """Take the project into the numbers of terms of runs, or out of them: both are one."""
    op.create_table("hashes", sa.Column("project", sa.Text()), sa.Column("hash", sa.BigInteger()))
    names = op.get_bind().scalars(sa.select(runs.c.project).distinct())
    op.bulk_insert(hashes, [{"project": name, "hash": _hash(name)} for name in names])
    columns = [terms.c[name] for name in COLUMNS]
    used = (
        sa.select(_xor(terms.c.id), project.label("project"), *columns)
        .join_from(run_terms, runs, runs.c.id == run_terms.c.run_id)
        .join(hashes, hashes.c.project == runs.c.project)
        .join(terms, terms.c.id == run_terms.c.term)
        .distinct()
    )
    op.execute(sa.insert(terms).from_select(["id", "project", *COLUMNS], used))
    number = (
        sa.select(_xor(run_terms.c.term))
        .join_from(runs, hashes, hashes.c.project == runs.c.project)
        .where(runs.c.id == run_terms.c.run_id)
        .scalar_subquery()
    )
    op.execute(sa.update(run_terms).values(term=number))
    op.drop_table("hashes")


def _drop_what_no_section_has(chosen: sa.ColumnElement[bool]) -> None:
    is_of_section = sa.exists().where(section_terms.c.term == terms.c.id)
    op.execute(sa.delete(terms).where(chosen, sa.not_(is_of_section)))


def _xor(number: Any) -> Any:
    if op.get_bind().dialect.name == "postgresql":
        return number.op("#")(hashes.c.hash)
    # SQLite has no such operator.
    return number.op("|")(hashes.c.hash) - number.op("&")(hashes.c.hash)


def _hash(project: str) -> int:
    digest = hashlib.blake2b(project.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
