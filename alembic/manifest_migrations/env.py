"""What Alembic runs for every command: connect, and compare with the tables of this version.

`upgrade.py` hands over its connection; a developer's `alembic` takes an address: ``-x url=…``.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from manifest_server.database import open_engine
from manifest_server.tables import NAME_TRIGRAMS, VERSION_TABLE, metadata


def _is_compared(name: str | None, kind: str, _: object) -> bool:
    # Made by migrations alone: each kind of database has its own.
    return not (kind in ("table", "index") and name is not None and NAME_TRIGRAMS in name)


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        include_name=_is_compared,
        # SQLite alters a column only by copying the table.
        render_as_batch=connection.dialect.name == "sqlite",
        # Alembic holds SQLite for unable to; the engine's own BEGIN makes it so.
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def _run_for_developer() -> None:
    url = context.get_x_argument(as_dictionary=True)["url"]
    engine = open_engine(str(url))
    with engine.connect() as connection:
        _run(connection)
    engine.dispose()


_handed_over = context.config.attributes.get("connection")
if _handed_over is not None:
    _run(_handed_over)
else:
    _run_for_developer()
