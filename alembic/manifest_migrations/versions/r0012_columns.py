"""Rows of trails without the columns in which nothing was observed.

Revision 0012. What is there already stays as it is; on the way back all rows are whole again.
"""

from __future__ import annotations

import struct

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

SIXTEEN = sa.LargeBinary(16).with_variant(postgresql.UUID(as_uuid=True), "postgresql")
COLUMNS = 10
WORD = 8
HEAD = struct.Struct("<HH")

segments = sa.table("segments", sa.column("key", SIXTEEN), sa.column("body", sa.LargeBinary))


def upgrade() -> None:
    """Bring the schema to this revision."""


def downgrade() -> None:
    """Bring the schema back to the revision before."""
    connection = op.get_bind()
    is_packed = sa.func.length(segments.c.body) % WORD != 0
    for key in connection.scalars(sa.select(segments.c.key).where(is_packed)).all():
        body = connection.execute(
            sa.select(segments.c.body).where(segments.c.key == key)
        ).scalar_one()
        statement = sa.update(segments).where(segments.c.key == key)
        connection.execute(statement.values(body=_whole(bytes(body))))


def _whole(body: bytes) -> bytes:
    mask, count = HEAD.unpack_from(body)
    rows = bytearray(count * COLUMNS * WORD)
    words = memoryview(rows).cast("Q")
    columns = memoryview(body)[HEAD.size :].cast("Q")
    held = [place for place in range(COLUMNS) if mask >> place & 1]
    for ordinal, place in enumerate(held):
        words[place::COLUMNS] = columns[ordinal * count : (ordinal + 1) * count]
    return bytes(rows)
