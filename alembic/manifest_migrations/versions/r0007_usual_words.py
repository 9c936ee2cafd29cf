"""Documents are compressed with what most of them have in common.

Revision 0007. What was compressed before is read as ever; only the way back writes anything.
"""

from __future__ import annotations

import zlib

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from manifest_server.packing import expanded

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SIXTEEN = sa.LargeBinary(16).with_variant(postgresql.UUID(as_uuid=True), "postgresql")
BATCH = 500


def upgrade() -> None:
    """Bring the schema to this revision."""


def downgrade() -> None:
    """Compress everything as it was before."""
    for table, key, body in (
        ("sections", "key", "body"),
        ("runs", "id", "document"),
        ("runs", "id", "verdict"),
    ):
        _compress_alone(sa.table(table, sa.column(key, SIXTEEN), sa.column(body)), key, body)


def _compress_alone(table: sa.TableClause, key: str, body: str) -> None:
    connection = op.get_bind()
    changed = sa.update(table).where(table.c[key] == sa.bindparam("changed"))
    statement = sa.select(table.c[key], table.c[body]).order_by(table.c[key]).limit(BATCH)
    found = connection.execute(statement).all()
    while found:
        rows = [
            {"changed": holder, "bytes": zlib.compress(expanded(bytes(data)), 1)}
            for holder, data in found
            if data is not None and data[:1] != b"{"
        ]
        if rows:
            connection.execute(changed.values({body: sa.bindparam("bytes")}), rows)
        found = connection.execute(statement.where(table.c[key] > found[-1][0])).all()
