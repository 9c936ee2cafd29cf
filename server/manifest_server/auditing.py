"""Who changed what, and when: an entry for every write, never changed afterwards."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, insert, select

from manifest.identity import new_run_id
from manifest.models import AuditEntry
from manifest_server.tables import audit


def put_entry(
    connection: Connection, *, caller: str, token_id: str | None, action: str, subject: str
) -> None:
    """Write down that a caller did something."""
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    connection.execute(
        insert(audit).values(
            id=new_run_id(),
            at=now,
            caller=caller,
            token_id=token_id,
            action=action,
            subject=subject,
        )
    )


def list_entries(
    connection: Connection, *, limit: int, before: str | None = None
) -> list[AuditEntry]:
    """The newest entries first, from below `before`."""
    statement = select(audit).order_by(audit.c.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(audit.c.id < before)
    return [AuditEntry.model_validate(row._asdict()) for row in connection.execute(statement)]
