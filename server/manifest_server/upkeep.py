"""Look after a database: whether it is whole, and a copy of it while it is in use."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import URL, make_url

from manifest.errors import StoreUnusable
from manifest_server.database import damaged, location, open_engine, transaction


def check(url: str | URL) -> None:
    """Read a whole SQLite file, or reach a PostgreSQL database, and say what is wrong.

    Raises:
        StoreUnusable: The database cannot be reached, or is damaged.
    """
    engine = open_engine(url)
    try:
        with transaction(engine) as connection:
            if engine.dialect.name == "sqlite":
                found = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one()
                if found != "ok":
                    raise damaged(engine.url, str(found))
            else:
                connection.exec_driver_sql("SELECT 1")
    finally:
        engine.dispose()


def back_up(url: str | URL, target: Path) -> None:
    """Copy a SQLite database as it is at one moment; others may write meanwhile.

    The copy appears whole or not at all, and is never put in the place of another file.

    Raises:
        StoreUnusable: There is nothing to copy, or the copy cannot be written.
    """
    address = make_url(url)
    if address.get_backend_name() != "sqlite":
        raise StoreUnusable(
            f"{location(address)} is looked after by its own tools: use `pg_dump -Fc`."
        )
    source = Path(address.database or "")
    if not source.is_file():
        raise StoreUnusable(f"there is no database at {source} to copy.")
    if target.exists():
        raise StoreUnusable(f"{target} is there already; give a name that is free.")
    part = target.with_name(f".{target.name}.part")
    try:
        _copy(source, part)
        os.link(part, target)  # unlike a renaming, it fails if someone was quicker
    except (OSError, sqlite3.Error) as error:
        raise StoreUnusable(f"{source} cannot be copied to {target}: {error}.") from error
    finally:
        part.unlink(missing_ok=True)


def _copy(source: Path, part: Path) -> None:
    part.unlink(missing_ok=True)
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(part)) as new:
        old.backup(new)
    part.chmod(0o600)  # it holds the digests of tokens
    with part.open("rb") as file:
        os.fsync(file.fileno())
