"""A row of `run_terms` may be of many runs.

Revision 0008. Rows of a single run stay good, so there is nothing to do on the way up; the store
puts them together in its own time.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

SIXTEEN = sa.LargeBinary(16).with_variant(postgresql.UUID(as_uuid=True), "postgresql")
SIXTEENS = sa.LargeBinary().with_variant(
    postgresql.ARRAY(postgresql.UUID(as_uuid=True)), "postgresql"
)

run_terms = sa.table(
    "run_terms",
    sa.column("term", sa.BigInteger),
    sa.column("run_id", SIXTEEN),
    sa.column("older", SIXTEENS),
)


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("run_terms", sa.Column("older", SIXTEENS))


def downgrade() -> None:
    """Give each run a row of its own again."""
    op.execute(sa.insert(run_terms).from_select(["term", "run_id"], _older()))
    op.drop_column("run_terms", "older")


def _older() -> sa.Select[Any]:
    term, older = run_terms.c.term, run_terms.c.older
    if op.get_bind().dialect.name == "postgresql":
        return sa.select(term, sa.func.unnest(older)).where(older.is_not(None))
    numbers = sa.select(sa.literal(0).label("number")).cte(recursive=True)
    most = sa.select(sa.func.max(sa.func.length(older)) / 16).scalar_subquery()
    numbers = numbers.union_all(sa.select(numbers.c.number + 1).where(numbers.c.number + 1 < most))
    start = numbers.c.number * 16
    return sa.select(term, sa.func.substr(older, start + 1, 16)).join_from(
        run_terms, numbers, start < sa.func.length(older)
    )
