"""The store of a folder holds what its run directories hold beside their manifests."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manifest.blobs import blobs_of
from manifest.comparing import compare_trails
from manifest.errors import DigestMismatch, TrailDiffers
from manifest.models import Manifest
from manifest.rundir import RunDirectory
from manifest.trail import Ending, Trail, TrailWriter
from manifest_client.contents import put_contents
from manifest_client.embedded import take_in
from manifest_migrations.upgrade import open_store
from manifest_server.database import sqlite_url
from manifest_server.sqlstore import SqlStore

GOLDEN = Path("manifest/golden/schema-1/01990000-0000-7000-8000-000000000001")
Record = Callable[..., RunDirectory]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    with open_store(sqlite_url(tmp_path / "store.db")) as opened:
        yield opened


@pytest.fixture
def golden(tmp_path: Path, checkout: Path) -> RunDirectory:
    """A run that a released version wrote, with blobs and a trail."""
    path = tmp_path / "runs" / GOLDEN.name
    shutil.copytree(checkout / "tests" / GOLDEN, path)
    return RunDirectory(path)


def put(store: SqlStore, run: RunDirectory) -> None:
    take_in(store, [run], pytest.fail)
    put_contents(store, run)


def write_trail(run: RunDirectory, steps: int) -> TrailWriter:
    writer = TrailWriter(run.trail_path("main"))
    for step in range(steps):
        writer.append(*(step.to_bytes(15, "big") + bytes([1 + n]) for n in range(5)))
    return writer


def kept_rows(store: SqlStore, run: RunDirectory) -> bytes:
    trail = store.trails.find(run.id, "main")
    return store.trails.header(run.id, "main") + b"".join(store.trails.rows(run.id, trail))


def test_blobs_and_trails_are_those_of_the_directory(store: SqlStore, golden: RunDirectory) -> None:
    for _ in range(2):
        put(store, golden)

    blobs = blobs_of(Manifest.model_validate(golden.document()))
    assert blobs
    assert store.blobs.lacking(blobs) == []
    (kept,) = store.trails.list(golden.id)
    beside = {
        path.suffix[1:]: path.read_bytes()
        for path in (golden.path / "trail").iterdir()
        if path.suffix != ".bin"
    }
    assert {name: store.blobs.get(digest) for name, digest in kept.files.items()} == beside
    there = {"main": Trail.open(golden.trail_path("main"))}
    assert compare_trails(store.trails.opened(golden.id), there).divergence is None
    assert kept_rows(store, golden) == golden.trail_path("main").read_bytes()


def test_a_long_trail_goes_on_where_it_was_left(store: SqlStore, record: Record) -> None:
    run = record(is_over=False)
    writer = write_trail(run, 1500)
    put(store, run)
    assert store.trails.find(run.id, "main").files == {}  # which may grow

    for step in range(1500, 70_000):
        writer.append(*(step.to_bytes(15, "big") + bytes([1 + n]) for n in range(5)))
    writer.close(Ending(rng={"torch": "ab"}))
    run.write_manifest()
    put(store, run)

    assert kept_rows(store, run) == run.trail_path("main").read_bytes()
    assert set(store.trails.find(run.id, "main").files) == {"final", "segments"}


@pytest.mark.parametrize(("size", "steps"), [(-50, 9), (-9 * 80 - 50, 0), (20, None), (0, None)])
def test_a_torn_trail_is_kept_as_far_as_it_is_whole(
    store: SqlStore, record: Record, size: int, steps: int | None
) -> None:
    run = record()
    write_trail(run, 10)
    path = run.trail_path("main")
    whole = path.read_bytes()
    path.write_bytes(whole[:size])

    put(store, run)

    kept = {trail.process: trail.steps for trail in store.trails.list(run.id)}
    assert kept == ({} if steps is None else {"main": steps})


def test_a_blob_that_is_gone_keeps_nothing_else_out(store: SqlStore, golden: RunDirectory) -> None:
    first, *_ = sorted(blobs_of(Manifest.model_validate(golden.document())))
    golden.drop_blob(first)

    put(store, golden)

    assert store.blobs.lacking([first]) == [first]
    assert store.trails.find(golden.id, "main").steps


def test_what_was_changed_on_disk_is_refused(store: SqlStore, golden: RunDirectory) -> None:
    (changed, *_) = [path for path in (golden.path / "blobs").rglob("*") if path.is_file()]
    content = changed.read_bytes()
    changed.chmod(0o644)
    changed.write_bytes(content + b"!")
    with pytest.raises(DigestMismatch):
        put(store, golden)
    changed.write_bytes(content)
    put(store, golden)

    path = golden.trail_path("main")
    path.write_bytes(path.read_bytes()[:-1] + b"!" + bytes(80))
    with pytest.raises(TrailDiffers):
        put(store, golden)
