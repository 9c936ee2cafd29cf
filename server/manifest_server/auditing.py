"""Who changed what, and when: an entry for every write, never changed afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, select

from manifest.identity import new_run_id
from manifest.models import AuditEntry
from manifest_server.rows import insert_missing
from manifest_server.tables import audit


@dataclass(frozen=True, slots=True)
class Change:
    """What a caller did."""

    caller: str
    token_id: str | None
    action: str
    subject: str


def put_changes(connection: Connection, changes: Iterable[Change]) -> None:
    """Write down what callers did."""
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    rows = [{"id": new_run_id(), "at": now, **asdict(each)} for each in changes]
    insert_missing(connection, audit, rows)


def list_entries(
    connection: Connection, *, limit: int, before: str | None = None
) -> list[AuditEntry]:
    """The newest entries first, from below `before`."""
    statement = select(audit).order_by(audit.c.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(audit.c.id < before)
    return [AuditEntry.model_validate(row._asdict()) for row in connection.execute(statement)]
