"""Databases are checked and copied."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from manifest.errors import StoreUnusable
from manifest_migrations.upgrade import open_store
from manifest_server.database import sqlite_url
from manifest_server.upkeep import back_up, check


def test_a_good_database_is_good(database_url: str) -> None:
    open_store(database_url).close()
    check(database_url)


def test_a_page_that_was_overwritten_is_found(sqlite_path: Path) -> None:
    url = sqlite_url(sqlite_path)
    with open_store(url) as store:
        for number in range(200):
            store.create_token(name=f"{number} " + "x" * 180, scopes=["read"])
    with closing(sqlite3.connect(sqlite_path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(sqlite_path.read_bytes())
    at = content.index(b"x" * 180) // 4096 * 4096
    content[at : at + 4096] = b"\x55" * 4096
    sqlite_path.write_bytes(content)

    with pytest.raises(StoreUnusable, match="damaged"):
        check(url)


def test_postgresql_is_left_to_its_own_tools(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="pg_dump"):
        back_up("postgresql://user:secret@host/name", tmp_path / "copy")


def test_a_copy_that_fails_leaves_nothing(sqlite_path: Path) -> None:
    sqlite_path.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreUnusable, match="cannot be copied"):
        back_up(sqlite_url(sqlite_path), sqlite_path.with_name("copy"))
    assert list(sqlite_path.parent.iterdir()) == [sqlite_path]
