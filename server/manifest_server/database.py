"""The engine, and the one place where a transaction begins and ends."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Text,
    column,
    create_engine,
    event,
    inspect,
    make_url,
    select,
    table,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError

from manifest.errors import ManifestError, StoreUnusable
from manifest_server.fairness import FairLock
from manifest_server.tables import VERSION_TABLE

BUSY_TIMEOUT_SECONDS: Final = 30.0
"""How long one process waits for another that writes the same SQLite file."""

_WRITE_LOCK: Final = "write_lock"
_LOCKED: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def sqlite_url(path: Path) -> URL:
    """The address of a SQLite file, whatever characters its path has."""
    return URL.create("sqlite", database=str(path))


def open_engine(
    url: str | URL,
    *,
    busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS,
    is_durable: bool = True,
) -> Engine:
    """Make an engine for a SQLite file or a PostgreSQL database; connects to nothing yet.

    Args:
        url: Its address.
        busy_timeout_seconds: How long to wait for another process that writes.
        is_durable: Whether what was committed to SQLite survives the loss of power. What can be
            made again from elsewhere need not wait for the disk. PostgreSQL is as it was set up.

    Raises:
        StoreUnusable: The address is of another kind, or its driver is not installed.
    """
    address = _checked_url(url)
    if address.get_backend_name() == "sqlite":
        engine = create_engine(
            address,
            connect_args={"timeout": busy_timeout_seconds},
            execution_options={_WRITE_LOCK: FairLock()},
        )
        event.listen(engine, "connect", partial(_set_up_sqlite, is_durable=is_durable))
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        # Prepared statements do not survive a pooler that hands out connections by transaction.
        engine = create_engine(
            address.set(drivername="postgresql+psycopg"), connect_args={"prepare_threshold": None}
        )
    except ImportError as error:
        raise StoreUnusable(
            "a store in PostgreSQL needs its driver: pip install 'manifest-replay[postgres]'"
        ) from error
    event.listen(engine, "connect", _set_up_postgresql)
    event.listen(engine, "before_cursor_execute", _ask_for_bytes)
    return engine


@contextmanager
def transaction(engine: Engine, *, is_writing: bool = False) -> Iterator[Connection]:
    """Commit what is done inside, or nothing of it.

    Raises:
        StoreUnusable: The database cannot be reached, read or written.
    """
    try:
        with (
            turn(engine) if is_writing else nullcontext(),
            engine.connect().execution_options(
                is_writing=is_writing, is_in_bytes=True
            ) as connection,
            connection.begin(),
        ):
            yield connection
    except DBAPIError as error:
        raise unusable(engine.url, error) from error


def turn(engine: Engine) -> AbstractContextManager[None]:
    """The turn to write, among the threads of this process."""
    # SQLite has one writer at a time, and lets whoever comes second sleep and try again.
    return engine.get_execution_options().get(_WRITE_LOCK) or nullcontext()


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Read what a store wrote, all of it at one moment.

    Raises:
        StoreUnusable: The database cannot be read, or holds what no store wrote.
    """
    try:
        with transaction(engine) as connection:
            yield connection
    except ManifestError:
        raise
    except (ValueError, TypeError, KeyError, zlib.error) as error:
        # Only bytes that were not written by a store can bring us here.
        raise damaged(engine.url, f"{type(error).__name__}: {error}") from error


def schema_revision(connection: Connection) -> str | None:
    """The revision of the schema in this database; None if there is none yet."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    statement = select(column("version_num", Text)).select_from(table(VERSION_TABLE))
    return connection.scalars(statement).first()


def location(url: URL) -> str:
    """Where a database is, for people: no password."""
    if url.get_backend_name() == "sqlite":
        return url.database or ""
    return url.render_as_string(hide_password=True)


def unusable(url: URL, error: DBAPIError) -> StoreUnusable:
    """Say what is wrong with a database, where, and what to do."""
    where = location(url)
    reason = str(error.orig).strip().split("\n", maxsplit=1)[0] or type(error.orig).__name__
    if url.get_backend_name() != "sqlite":
        return StoreUnusable(
            f"the store {where} cannot be used: {reason}. Check that the database runs and that "
            "this account may read and write it."
        )
    code = getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _LOCKED:
        return StoreUnusable(
            f"the store {where} is locked by another process ({reason}). Try again when that has "
            "ended; `fuser` on the file names it."
        )
    if code in _DAMAGED:
        return damaged(url, reason)
    return StoreUnusable(
        f"the store {where} cannot be read and written: {reason}. Check that its folder exists, "
        "may be written and has space left."
    )


def is_outage(error: Exception) -> bool:
    """Whether the database itself fails, whatever it is given."""
    return isinstance(error.__cause__, OperationalError)


def damaged(url: URL, reason: str) -> StoreUnusable:
    """Say that a store holds what nobody wrote, and how to be rid of it."""
    remedy = (
        f"It is only an index of the run directories: delete {url.database} and it is built "
        "again from them."
        if url.get_backend_name() == "sqlite"
        else "Restore it from a backup, or fill an empty database from the run directories."
    )
    return StoreUnusable(f"the store {location(url)} is damaged: {reason}. {remedy}")


def _checked_url(url: str | URL) -> URL:
    try:
        address = make_url(url)
        backend = address.get_backend_name()
    except (ArgumentError, NoSuchModuleError) as error:
        raise StoreUnusable(f"'{url}' is not the address of a database") from error
    is_file = backend == "sqlite" and address.database not in (None, "", ":memory:")
    if is_file or backend in ("postgresql", "postgres"):
        return address
    raise StoreUnusable(
        f"a store is a SQLite file (sqlite:///path) or a PostgreSQL database (postgresql://…), "
        f"not '{address.render_as_string(hide_password=True)}'"
    )


def _set_up_sqlite(connection: Any, _record: object, *, is_durable: bool) -> None:
    # The driver's own transactions begin too late for a snapshot and never for DDL.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")
    # Without FULL the last commits may be lost with the power, though never the file.
    connection.execute(f"PRAGMA synchronous = {'FULL' if is_durable else 'NORMAL'}")


def _set_up_postgresql(connection: Any, _record: object) -> None:
    from psycopg.types.array import ListBinaryDumper

    # As text, which the driver prefers, bytes in an array are twice as many, and both sides take
    # several times as long over them.
    connection.adapters.register_dumper(list, ListBinaryDumper)


def _ask_for_bytes(connection: Connection, cursor: Any, *_: object) -> None:
    # The same of what is read. Migrations also read what the driver knows as text alone.
    if connection.get_execution_options().get("is_in_bytes"):
        cursor.format = 1


def _begin_sqlite(connection: Connection) -> None:
    # A reader that turns writer cannot wait for another writer, it fails: say so from the start.
    is_writing = connection.get_execution_options().get("is_writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")
