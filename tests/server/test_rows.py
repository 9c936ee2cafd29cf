"""Rows that are not there yet are inserted, in as few bytes as they have."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection

from manifest_server.database import open_engine, transaction
from manifest_server.rows import insert_missing
from manifest_server.tables import segments

Row = dict[str, object]


def some_rows() -> list[Row]:
    return [
        {"key": secrets.token_hex(16), "node": os.urandom(80), "body": os.urandom(50_000)}
        for _ in range(4)
    ]


def test_bytes_go_to_postgresql_as_they_are(postgresql_store_url: str, tmp_path: Path) -> None:
    engine = open_engine(postgresql_store_url)
    with (
        transaction(engine, is_writing=True) as connection,
        sizes_sent(connection, tmp_path / "trace") as sizes,
    ):
        insert_missing(connection, segments, some_rows())
    engine.dispose()

    assert 200_000 < sum(sizes) < 204_000  # as text they are twice as many


@contextmanager
def sizes_sent(connection: Connection, path: Path) -> Iterator[list[int]]:
    """How many bytes each message to the database has."""
    driver = connection.connection.driver_connection
    assert driver is not None
    sizes: list[int] = []
    with path.open("wb") as file:
        driver.pgconn.trace(file.fileno())
        yield sizes
        driver.pgconn.untrace()
    sizes.extend(int(size) for size in _SENT.findall(path.read_bytes()))


_SENT = re.compile(rb"^[-0-9]+ [.:0-9]+\tF\t(\d+)\t", re.MULTILINE)
