"""Indexes of terms hold all that is asked of these, and numbers in the order of a project.

Revision 0011. A range in a project passes over no number of another, and neither ranges nor counts
of values look at the rows of terms.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema to this revision."""
    _replace("value", ["project", "value"], ["project", "value", "kind", "number", "id"])
    _replace("number", ["number"], ["project", "number", "id"])


def downgrade() -> None:
    """Bring the schema back to the revision before."""
    _replace("number", ["project", "number", "id"], ["number"])
    _replace("value", ["project", "value", "kind", "number", "id"], ["project", "value"])


def _replace(sought: str, before: list[str], after: list[str]) -> None:
    is_number = sa.text("number IS NOT NULL") if sought == "number" else None
    op.create_index(
        "_".join(["ix_terms_section_key", *after]),
        "terms",
        ["section", "key", *after],
        sqlite_where=is_number,
        postgresql_where=is_number,
    )
    op.drop_index("_".join(["ix_terms_section_key", *before]), "terms")
