"""A database that cannot be used is named, with what is wrong and what to do."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from manifest.errors import DigestMismatch, RunNotFound, StoreUnusable
from manifest.models import Manifest
from manifest_migrations.upgrade import open_store
from manifest_server.database import open_engine, sqlite_url, transaction
from manifest_server.sqlstore import SqlStore
from manifest_server.tables import run_sections

MakeManifest = Callable[..., Manifest]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "store.db"
    with pytest.raises(StoreUnusable, match="Check that its folder exists") as caught:
        open_store(sqlite_url(path))
    assert str(path) in str(caught.value)


def test_a_file_of_another_kind_is_called_damaged_and_can_be_deleted(sqlite_path: Path) -> None:
    sqlite_path.write_bytes(b"this was never a database " * 1000)
    with pytest.raises(StoreUnusable, match="only an index of the run directories: delete"):
        open_store(sqlite_url(sqlite_path))
    sqlite_path.unlink()
    open_store(sqlite_url(sqlite_path)).close()


def test_a_file_with_its_middle_overwritten_is_called_damaged(
    sqlite_path: Path, make_manifest: MakeManifest
) -> None:
    fill(sqlite_path, make_manifest)
    size = sqlite_path.stat().st_size
    with sqlite_path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    with pytest.raises(StoreUnusable, match="is damaged"):
        read_everything(sqlite_path)


@pytest.mark.parametrize(("table", "column"), [("runs", "document"), ("sections", "body")])
def test_a_run_with_one_bit_flipped_is_never_handed_out(
    sqlite_path: Path, make_manifest: MakeManifest, table: str, column: str
) -> None:
    run_id = fill(sqlite_path, make_manifest)
    longest = f"SELECT {column} FROM {table} ORDER BY length({column}) DESC LIMIT 1"
    with closing(sqlite3.connect(sqlite_path)) as connection, connection:
        ((kept,),) = connection.execute(longest).fetchall()
        middle = len(kept) // 2
        damaged = kept[:middle] + bytes([kept[middle] ^ 1]) + kept[middle + 1 :]
        connection.execute(f"UPDATE {table} SET {column} = ?", (damaged,))
    with (
        open_store(sqlite_url(sqlite_path)) as store,
        pytest.raises((StoreUnusable, DigestMismatch)),
    ):
        store.get_run(run_id)


def test_a_file_that_another_process_holds_is_called_locked(
    sqlite_path: Path, make_manifest: MakeManifest
) -> None:
    url = sqlite_url(sqlite_path)
    open_store(url).close()
    with (
        closing(sqlite3.connect(sqlite_path, isolation_level=None)) as other,
        open_store(url, busy_timeout_seconds=0) as store,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnusable, match="is locked by another process"):
            store.put_run(make_manifest())
        assert store.list_runs() == []  # readers do not wait
        other.execute("ROLLBACK")
        store.put_run(make_manifest())


def test_a_file_that_may_not_be_written_is_named(
    sqlite_path: Path, make_manifest: MakeManifest
) -> None:
    open_store(sqlite_url(sqlite_path)).close()
    with open_store(sqlite_url(sqlite_path)) as store:
        # The administrator may write to every file, so the file itself is told to refuse.
        with transaction(store._engine) as connection:
            connection.connection.cursor().execute("PRAGMA query_only = ON")
        with pytest.raises(StoreUnusable, match="cannot be read and written: attempt to write"):
            store.put_run(make_manifest())


def test_a_server_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    url = f"postgresql://ada:secret@/runs?host={tmp_path}"
    with pytest.raises(StoreUnusable, match="Check that the database runs") as caught:
        open_store(url)
    assert "ada:***@" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://x/y", "x", "", "a://"])
def test_what_is_no_address_of_a_store_is_refused(url: str) -> None:
    with pytest.raises(StoreUnusable):
        open_store(url)


def test_an_empty_database_is_not_opened_as_a_store(database_url: str) -> None:
    with pytest.raises(StoreUnusable, match="empty or of an older Manifest"):
        SqlStore.open(database_url)


def test_an_opened_store_needs_no_upgrade(database_url: str) -> None:
    open_store(database_url).close()
    with SqlStore.open(database_url) as store:
        assert store.list_runs() == []


def test_a_newer_database_is_left_alone(store: SqlStore, store_url: str) -> None:
    with transaction(store._engine, is_writing=True) as connection:
        connection.execute(text("UPDATE manifest_revision SET version_num = '9999'"))
    for way in (open_store, SqlStore.open):
        with pytest.raises(StoreUnusable, match="schema 9999; this Manifest knows schemas up to"):
            way(store_url)


def test_nothing_of_a_transaction_that_fails_stays(
    store: SqlStore, make_manifest: MakeManifest
) -> None:
    manifest = make_manifest()
    store.put_run(manifest)

    def delete_and_be_stopped() -> None:
        with transaction(store._engine, is_writing=True) as connection:
            connection.execute(text("DELETE FROM run_sections"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        delete_and_be_stopped()
    assert store.get_run(manifest.id) == manifest


def test_a_sqlite_store_does_not_make_readers_wait(sqlite_path: Path) -> None:
    open_store(sqlite_url(sqlite_path)).close()
    with closing(sqlite3.connect(sqlite_path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_references_are_checked_by_the_database(store: SqlStore) -> None:
    nobody = {"run_id": "0" * 32, "process": "", "name": "x", "key": "0" * 32}
    with (
        pytest.raises(StoreUnusable, match=r"(?i)foreign key"),
        transaction(store._engine, is_writing=True) as connection,
    ):
        connection.execute(run_sections.insert(), nobody)


def test_opening_a_store_that_is_up_to_date_never_loads_alembic(sqlite_path: Path) -> None:
    open_store(sqlite_url(sqlite_path)).close()
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from manifest_migrations.upgrade import open_store\n"
        "from manifest_server.database import sqlite_url\n"
        "with open_store(sqlite_url(Path(sys.argv[1]))) as store: store.list_runs()\n"
        "print({'alembic', 'psycopg', 'torch', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, sqlite_path], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_an_engine_connects_to_nothing_by_itself(sqlite_path: Path) -> None:
    open_engine(sqlite_url(sqlite_path)).dispose()
    assert not sqlite_path.exists()


def fill(path: Path, make_manifest: MakeManifest) -> str:
    """Make a store with some runs and give the id of one."""
    manifests = [make_manifest(name="x" * 150) for _ in range(50)]
    with open_store(sqlite_url(path)) as store:
        store.put_runs((manifest, None) for manifest in manifests)
    return manifests[0].id


def read_everything(path: Path) -> None:
    with open_store(sqlite_url(path)) as store:
        for summary in store.list_runs(limit=1000):
            try:
                store.get_run(summary.id)
            except RunNotFound:
                pytest.fail("a damaged store lost a run without a word")
