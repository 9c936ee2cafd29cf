"""A run that comes adds one row with all of its terms that others have.

Revision 0013. They are put to those of other runs later, many at once.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
SIXTEEN = sa.LargeBinary(16).with_variant(postgresql.UUID(as_uuid=True), "postgresql")
NUMBERS = sa.Text().with_variant(postgresql.ARRAY(sa.BigInteger), "postgresql")

run_terms = sa.table("run_terms", sa.column("term", sa.BigInteger), sa.column("run_id", SIXTEEN))
fresh_terms = sa.table("fresh_terms", sa.column("run_id", SIXTEEN), sa.column("terms", NUMBERS))


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "fresh_terms",
        sa.Column("number", NUMBER, sa.Identity(), primary_key=True),
        sa.Column("run_id", SIXTEEN, nullable=False),
        sa.Column("terms", NUMBERS, nullable=False),
    )


def downgrade() -> None:
    """Give each term of these runs a row of its own."""
    op.execute(sa.insert(run_terms).from_select(["term", "run_id"], _apart()))
    op.drop_table("fresh_terms")


def _apart() -> sa.Select[Any]:
    run_id, terms = fresh_terms.c.run_id, fresh_terms.c.terms
    if op.get_bind().dialect.name == "postgresql":
        return sa.select(sa.func.unnest(terms), run_id)
    each = sa.func.json_each(terms).table_valued(sa.column("value", sa.BigInteger))
    return sa.select(each.c.value, run_id).join_from(fresh_terms, each, sa.true())
