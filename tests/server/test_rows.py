"""Rows that are not there yet are inserted, in as few bytes as they have."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Column, Connection, LargeBinary, MetaData, Table, select

from manifest.errors import StoreUnusable
from manifest_server.database import open_engine, transaction
from manifest_server.rows import copy_missing, insert_missing
from manifest_server.sqlstore import SqlStore
from manifest_server.tables import segments

END_OTHERS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""

Row = dict[str, object]
Add = Callable[[Connection, Table, Sequence[Row]], object]


def some_rows() -> list[Row]:
    return [
        {"key": secrets.token_hex(16), "node": os.urandom(80), "body": os.urandom(50_000)}
        for _ in range(4)
    ]


@pytest.mark.parametrize("add", [insert_missing, copy_missing])
def test_bytes_go_to_postgresql_and_come_back_as_they_are(
    postgresql_store_url: str, tmp_path: Path, add: Add
) -> None:
    engine = open_engine(postgresql_store_url)
    with (
        transaction(engine, is_writing=True) as connection,
        message_bytes(connection, tmp_path / "trace") as found,
    ):
        add(connection, segments, some_rows())
        connection.execute(select(segments)).all()
    engine.dispose()

    for bytes_ in (found["sent"], found["received"]):
        assert 200_000 < bytes_ < 204_000  # as text they are twice as many


def test_rows_that_another_writer_was_first_with_are_left_to_it(store: SqlStore) -> None:
    rows = some_rows()
    theirs = [{**row, "node": b"theirs"} for row in rows[1:3]]
    with transaction(store._engine, is_writing=True) as connection:
        assert copy_missing(connection, segments, theirs)
    with transaction(store._engine, is_writing=True) as connection:
        is_alone = copy_missing(connection, segments, rows)
        assert is_alone == (connection.dialect.name == "sqlite")

    expected = [rows[0], *theirs, rows[3]]
    assert kept(store) == sorted(expected, key=itemgetter("key"))


def test_what_the_database_refuses_a_copy_of_is_named(store: SqlStore) -> None:
    nowhere = Table("nowhere", MetaData(), Column("id", LargeBinary, primary_key=True))
    with (
        pytest.raises(StoreUnusable, match="nowhere"),
        transaction(store._engine, is_writing=True) as connection,
    ):
        copy_missing(connection, nowhere, [{"id": b"1"}])


def test_a_connection_that_is_lost_while_rows_are_copied_is_not_used_again(
    postgresql_store_url: str,
) -> None:
    class Lost(list[Row]):
        def __iter__(self) -> Iterator[Row]:
            for row in super().__iter__():
                yield row
                other.execute(END_OTHERS)

    with (
        SqlStore.open(postgresql_store_url) as store,
        psycopg.connect(postgresql_store_url, autocommit=True) as other,
    ):
        with (
            pytest.raises(StoreUnusable, match="cannot be used"),
            transaction(store._engine, is_writing=True) as connection,
        ):
            copy_missing(connection, segments, Lost(some_rows()))
        assert kept(store) == []


def kept(store: SqlStore) -> list[Row]:
    with transaction(store._engine) as connection:
        found = connection.execute(select(segments).order_by(segments.c.key))
        return [row._asdict() for row in found]


@contextmanager
def message_bytes(connection: Connection, path: Path) -> Iterator[dict[str, int]]:
    """How many bytes messages to the database have, and those from it."""
    driver = connection.connection.driver_connection
    assert driver is not None
    found: dict[str, int] = {}
    with path.open("wb") as file:
        driver.pgconn.trace(file.fileno())
        yield found
        driver.pgconn.untrace()
    # A line is a moment, who sends, how many bytes, and what.
    for name, sender in (("sent", b"F"), ("received", b"B")):
        line = rb"^[-0-9]+ [.:0-9]+\t%s\t(\d+)\t" % sender
        found[name] = sum(map(int, re.findall(line, path.read_bytes(), re.MULTILINE)))
