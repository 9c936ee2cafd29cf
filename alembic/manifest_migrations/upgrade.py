"""Bring a database to this version's schema, and open it."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import URL, Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from manifest.errors import StoreUnusable
from manifest_server.database import (
    BUSY_TIMEOUT_SECONDS,
    location,
    open_engine,
    schema_revision,
    unusable,
)
from manifest_server.sqlstore import SqlStore
from manifest_server.tables import REVISION

if TYPE_CHECKING:
    from alembic.config import Config

_SCRIPTS: Final = Path(__file__).parent
_LOCK_KEY: Final = int.from_bytes(b"manifest", "big")
_one_at_a_time = threading.Lock()  # Alembic's context is global to the process


def open_store(
    url: str | URL,
    *,
    busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS,
    is_durable: bool = True,
) -> SqlStore:
    """Open a store, making or upgrading its schema where that is needed.

    Any number of processes may do so at once. The arguments are those of `open_engine`.

    Raises:
        StoreUnusable: The database cannot be used, or its schema is newer than this version.
    """
    engine = open_engine(url, busy_timeout_seconds=busy_timeout_seconds, is_durable=is_durable)
    with ExitStack() as undo:
        store = undo.enter_context(SqlStore(engine))
        if not store.is_current():
            upgrade(url)
        undo.pop_all()
    return store


def upgrade(url: str | URL) -> None:
    """Bring a database to the newest schema; does nothing where it is that already.

    Raises:
        StoreUnusable: The database cannot be reached or written.
    """
    from alembic import command

    def run(config: Config, connection: Connection) -> None:
        if schema_revision(connection) != REVISION:
            command.upgrade(config, "head")

    _migrate(url, run)


def downgrade(url: str | URL, revision: str) -> None:
    """Bring a database back to an older schema; ``base`` is an empty database.

    Raises:
        StoreUnusable: The database cannot be reached or written.
    """
    from alembic import command

    _migrate(url, lambda config, _: command.downgrade(config, revision))


def migration_config(connection: Connection) -> Config:
    """What Alembic's own commands need to work on this connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _migrate(url: str | URL, run: Callable[[Config, Connection], None]) -> None:
    engine = open_engine(url)
    is_sqlite = engine.dialect.name == "sqlite"
    lock = _sqlite_lock if is_sqlite else _postgresql_lock
    try:
        with (
            _one_at_a_time,
            lock(engine),
            engine.connect().execution_options(is_writing=True) as connection,
        ):
            if is_sqlite:
                _prepare_sqlite(connection)
            with connection.begin():
                run(migration_config(connection), connection)
    except DBAPIError as error:
        raise unusable(engine.url, error) from error
    finally:
        engine.dispose()


def _prepare_sqlite(connection: Connection) -> None:
    cursor = connection.connection.cursor()  # below SQLAlchemy, which would begin a transaction
    # Readers and a writer do not wait for each other; the file remembers it.
    cursor.execute("PRAGMA journal_mode = WAL")
    # A copied table would take the rows that refer to it along when the old one is dropped.
    cursor.execute("PRAGMA foreign_keys = OFF")
    cursor.close()


@contextmanager
def _sqlite_lock(engine: Engine) -> Iterator[None]:
    path = Path(f"{location(engine.url)}.lock")
    try:
        file = path.open("ab")
    except OSError as error:
        raise StoreUnusable(
            f"the store {location(engine.url)} cannot be made: {error.strerror} ({path}). Check "
            "that its folder exists and may be written."
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _postgresql_lock(engine: Engine) -> Iterator[None]:
    # On a connection of its own: the migration's ends with its transaction.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK_KEY})
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK_KEY})
