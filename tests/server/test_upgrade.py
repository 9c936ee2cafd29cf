"""Databases come to this version's schema, from anywhere and by many at once."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Engine, Table, func, inspect, select, text

from manifest.canonical import digest_bytes
from manifest.errors import StoreUnusable
from manifest.filtering import parse_field, parse_filter
from manifest.models import Annotations, Manifest
from manifest.segments import SEGMENT_STEPS
from manifest.streams import ROW_SIZE, STREAMS
from manifest_migrations.upgrade import downgrade, migration_config, open_store, upgrade
from manifest_server.columns import HEAD_SIZE
from manifest_server.database import open_engine, sqlite_url, transaction
from manifest_server.holders import pairs
from manifest_server.sqlstore import SqlStore
from manifest_server.tables import (
    REVISION,
    fresh_terms,
    metadata,
    names,
    run_terms,
    segments,
)

MakeManifest = Callable[..., Manifest]

OPENER = """
import sys
from manifest_migrations.upgrade import open_store
print("ready", flush=True)
sys.stdin.readline()
with open_store(sys.argv[1]) as store:
    print(len(store.list_runs()))
"""


def test_the_newest_migration_is_the_schema_of_this_version(sqlite_path: Path) -> None:
    engine = open_engine(sqlite_url(sqlite_path))
    with transaction(engine) as connection:
        scripts = ScriptDirectory.from_config(migration_config(connection))
    engine.dispose()
    assert scripts.get_current_head() == REVISION


def test_every_revision_follows_the_one_before_in_the_order_of_its_name(sqlite_path: Path) -> None:
    engine = open_engine(sqlite_url(sqlite_path))
    with transaction(engine) as connection:
        scripts = ScriptDirectory.from_config(migration_config(connection))
    engine.dispose()
    revisions = [script.revision for script in scripts.walk_revisions()]
    assert revisions == [f"{number:04d}" for number in range(len(revisions), 0, -1)]


def test_no_table_is_without_its_migration(database_url: str) -> None:
    upgrade(database_url)
    engine = open_engine(database_url)
    with engine.connect() as connection, connection.begin():
        config = migration_config(connection)
        config.stdout = io.StringIO()
        command.check(config)
    engine.dispose()


def test_a_schema_goes_up_and_down_and_up_with_rows_in_it(
    database_url: str, make_manifest: MakeManifest
) -> None:
    with open_store(database_url) as store:
        store.put_run(make_manifest())
    downgrade(database_url, "base")
    assert tables(open_engine(database_url)) <= {"manifest_revision"}
    with open_store(database_url) as store:
        manifest = make_manifest()
        store.put_run(manifest)
        assert store.list_runs()[0].id == manifest.id
    assert set(metadata.tables) <= tables(open_engine(database_url))


def test_runs_survive_a_schema_without_blobs_and_refer_to_them_again_after(
    database_url: str, make_manifest: MakeManifest
) -> None:
    contents = [b"a file", b"weights"]
    file, weights = map(digest_bytes, contents)
    manifest = make_manifest(
        sections={
            "training": {"precision": "bf16"},
            "code": {"files": {"a.py": file}},
            "config": {"start": weights},
        }
    )
    with open_store(database_url) as store:
        store.put_run(manifest)
    downgrade(database_url, "0003")
    assert "blobs" not in tables(open_engine(database_url))
    with open_store(database_url) as store:
        assert store.get_run(manifest.id) == manifest
        for content in contents:
            store.blobs.put(content)
        store.collect(grace=timedelta(0))
        assert store.blobs.lacking([file, weights]) == []


@pytest.mark.parametrize(
    "revision", ["0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011"]
)
def test_runs_are_found_as_before_after_a_schema_of_before(
    database_url: str, make_manifest: MakeManifest, revision: str
) -> None:
    def found(store: SqlStore) -> list[object]:
        return [
            *(store.get_run(manifest.id) for manifest in manifests),
            *(store.list_runs(wanted=parse_filter(each)) for each in filters),
            *(store.list_runs(wanted=parse_filter(each), project="cats") for each in filters),
            *(store.count_values(parse_field(each), project="cats") for each in fields),
            *(store.list_fields(each, project="dogs") for each in ("config.", "settings.")),
        ]

    filters = (
        "settings.a = 1",
        'settings.a = 1 and packages.b = "2"',
        "config.lr < 1",
        "config.layers > 7 and config.layers < 3",
        'tags.team = "nlp"',
        'name ~ "number 3"',
    )
    fields = ("settings.a", "config.lr", "config.layers")
    manifests = [
        make_manifest(
            name=f"number {number}",
            project=("cats", "dogs")[number % 2],
            sections={
                "settings": {"a": number % 3},
                "packages": {"b": str(number // 2)},
                "config": {"lr": number / 4, "layers": [number, 8], "text": "x" * 600},
            },
        )
        for number in range(6)
    ]
    with open_store(database_url) as store:
        store.put_runs((manifest, None) for manifest in manifests)
        store.put_run(make_manifest(is_sealed=False))
        store.put_annotations(manifests[0].id, Annotations(tags={"team": "nlp"}))
        before = found(store)
        kept = rows(store)
    downgrade(database_url, revision)
    with open_store(database_url) as store:
        assert found(store) == before
        assert rows(store) == kept


def test_rows_of_trails_are_kept_as_they_are_and_those_of_a_schema_of_before_stay(
    database_url: str, make_manifest: MakeManifest
) -> None:
    with open_store(database_url) as store:
        new = add_rows(store, make_manifest(), b"new." * (ROW_SIZE // 4))
        assert compressed(store) == []
    downgrade(database_url, "0009")
    with SqlStore(open_engine(database_url)) as store:
        old = add_rows(store, make_manifest(), b"old." * (ROW_SIZE // 4))
    with open_store(database_url) as store:
        assert compressed(store) == ([] if database_url.startswith("sqlite") else ["pglz"])
        for run_id, rows_sent in (new, old):
            assert rows_of(store, run_id) == rows_sent


def test_rows_of_trails_are_whole_again_in_a_schema_of_before(
    database_url: str, make_manifest: MakeManifest
) -> None:
    row = b"held" * (ROW_SIZE // 8) + bytes(ROW_SIZE // 2)
    with open_store(database_url) as store:
        run_id, rows_sent = add_rows(store, make_manifest(), row)
        assert lengths(store) == [len(rows_sent) // 2 + HEAD_SIZE]
    downgrade(database_url, "0011")
    with SqlStore(open_engine(database_url)) as store:
        assert lengths(store) == [len(rows_sent)]
    with open_store(database_url) as store:
        assert rows_of(store, run_id) == rows_sent


def add_rows(store: SqlStore, run: Manifest, row: bytes) -> tuple[str, bytes]:
    """Put a run with a trail of the same row again and again; gives its id and its rows."""
    header = {"schema": 1, "algorithm": "a", "streams": STREAMS, "row": ROW_SIZE}
    found = row * SEGMENT_STEPS
    store.put_run(run)
    store.trails.put_rows(run.id, "main", json.dumps(header).encode() + b"\n" + found, start=0)
    return run.id, found


def rows_of(store: SqlStore, run_id: str) -> bytes:
    return b"".join(store.trails.rows(run_id, store.trails.find(run_id, "main")))


def lengths(store: SqlStore) -> list[int]:
    """How many bytes are kept of each segment."""
    with transaction(store._engine) as connection:
        return list(connection.scalars(select(func.length(segments.c.body))))


def compressed(store: SqlStore) -> list[str]:
    """How PostgreSQL has compressed the rows of those segments that it has."""
    statement = "SELECT pg_column_compression(body) FROM segments"
    with transaction(store._engine) as connection:
        if connection.dialect.name == "sqlite":
            return []
        return [found for found in connection.scalars(text(statement)) if found]


def test_an_upgrade_of_what_is_up_to_date_changes_nothing(
    database_url: str, make_manifest: MakeManifest
) -> None:
    manifest = make_manifest()
    with open_store(database_url) as store:
        store.put_run(manifest)
    upgrade(database_url)
    with SqlStore.open(database_url) as store:
        assert store.get_run(manifest.id) == manifest


def test_many_processes_may_open_a_new_store_at_once(database_url: str) -> None:
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, database_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in openers:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in openers:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [(*process.communicate(), process.returncode) for process in openers]
    assert results == [("0\n", "", 0)] * 4


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(database_url: str) -> None:
    engine = open_engine(database_url)
    with transaction(engine, is_writing=True) as connection:
        # The last table that the migrations make is in the way.
        connection.execute(text("CREATE TABLE run_sections (mine INTEGER)"))
    with pytest.raises(StoreUnusable, match="already exists"):
        open_store(database_url)
    assert tables(engine) == {"run_sections"}
    with transaction(engine, is_writing=True) as connection:
        connection.execute(text("DROP TABLE run_sections"))
    engine.dispose()
    open_store(database_url).close()


def test_a_checkout_and_a_wheel_find_the_same_scripts(checkout: Path, sqlite_path: Path) -> None:
    engine = open_engine(sqlite_url(sqlite_path))
    with transaction(engine) as connection:
        location = migration_config(connection).get_main_option("script_location")
    engine.dispose()
    assert location == str(checkout / "alembic" / "manifest_migrations")


def test_a_developer_can_ask_alembic_itself(checkout: Path, sqlite_path: Path) -> None:
    alembic = [sys.executable, "-m", "alembic", "-x", f"url={sqlite_url(sqlite_path)}"]
    upgrade(sqlite_url(sqlite_path))
    done = subprocess.run(
        [*alembic, "current"], cwd=checkout, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{REVISION} (head)\n"


def rows(store: SqlStore) -> dict[str, list[str]]:
    """What is kept by table, as far as it is always the same."""
    with transaction(store._engine) as connection:
        found = {
            name: sorted(map(str, connection.execute(select(*_readable(table)))))
            for name, table in metadata.tables.items()
        }
        # How many runs are in a row depends on who came together.
        held = sorted(map(str, connection.execute(pairs(connection))))
        return {name: some for name, some in found.items() if name != fresh_terms.name} | {
            run_terms.name: held
        }


def _readable(table: Table) -> list[Column[object]]:
    return [column for column in table.c if not _is_by_chance(column)]


def _is_by_chance(column: Column[object]) -> bool:
    # Documents may be compressed in another way, and names be numbered in another order.
    return column.name in ("document", "verdict", "body") or column is names.c.number


def tables(engine: Engine) -> set[str]:
    """The names of the tables that are there."""
    with transaction(engine) as connection:
        names = set(inspect(connection).get_table_names())
    engine.dispose()
    return names
