"""One key for all sections that a run shares, in place of a column and an index for each.

Revision 0005.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

SHARED = (
    "settings",
    "packages",
    "environment",
    "hardware",
    "code",
    "loaders",
    "inputs",
    "training",
)
KEYS = [f"{name}_key" for name in SHARED]
SIXTEEN = sa.LargeBinary(16).with_variant(postgresql.UUID(as_uuid=True), "postgresql")

runs = sa.table(
    "runs",
    sa.column("project", sa.Text),
    sa.column("setup_key", SIXTEEN),
    *(sa.column(name, SIXTEEN) for name in KEYS),
)
setups = sa.table(
    "setups",
    sa.column("key", SIXTEEN),
    sa.column("project", sa.Text),
    *(sa.column(name, SIXTEEN) for name in KEYS),
)


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "setups",
        sa.Column("key", SIXTEEN, nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        *(sa.Column(name, SIXTEEN) for name in KEYS),
        sa.PrimaryKeyConstraint("key", name="pk_setups"),
        sqlite_with_rowid=False,
    )
    op.add_column("runs", sa.Column("setup_key", SIXTEEN))
    _put_together()
    for name in KEYS:
        op.drop_index(f"ix_runs_{name}_id", "runs")
        op.drop_column("runs", name)
        op.create_index(f"ix_setups_{name}", "setups", [name])
    op.create_index("ix_setups_project", "setups", ["project"])
    op.create_index("ix_runs_setup_key", "runs", ["setup_key"])


def downgrade() -> None:
    """Bring the schema back to the revision before."""
    for name in KEYS:
        op.add_column("runs", sa.Column(name, SIXTEEN))
    of_setup = setups.c.key == runs.c.setup_key
    values = {name: sa.select(setups.c[name]).where(of_setup).scalar_subquery() for name in KEYS}
    op.execute(sa.update(runs).where(runs.c.setup_key.is_not(None)).values(values))
    for name in KEYS:
        op.create_index(f"ix_runs_{name}_id", "runs", [name, "id"])
    op.drop_index("ix_runs_setup_key", "runs")
    op.drop_column("runs", "setup_key")
    op.drop_table("setups")


def _put_together() -> None:
    connection = op.get_bind()
    columns = [runs.c[name] for name in KEYS]
    has_any = sa.or_(*(column.is_not(None) for column in columns))
    found = connection.execute(sa.select(runs.c.project, *columns).where(has_any).distinct())
    rows = [dict(zip(("key", "project", *KEYS), (_key(*row), *row), strict=True)) for row in found]
    if not rows:
        return
    op.bulk_insert(setups, rows)
    is_same = [setups.c[name].is_not_distinct_from(runs.c[name]) for name in ("project", *KEYS)]
    key = sa.select(setups.c.key).where(*is_same).scalar_subquery()
    connection.execute(sa.update(runs).where(has_any).values(setup_key=key))


def _key(project: str, *keys: Any) -> Any:
    digits = ["" if key is None else key.hex if _is_uuid(key) else key.hex() for key in keys]
    digest = hashlib.sha256("\0".join([project, *digits]).encode()).digest()[:16]
    return uuid.UUID(bytes=digest) if any(map(_is_uuid, keys)) else digest


def _is_uuid(key: Any) -> bool:
    return isinstance(key, uuid.UUID)
