"""Blobs come back as they were put, go when nothing refers to them, and not before."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from manifest.canonical import digest_bytes
from manifest.errors import BlobNotFound, StoreUnusable
from manifest.identity import new_run_id
from manifest.models import Manifest
from manifest_server.blobs import PIECE_BYTES
from manifest_server.database import transaction
from manifest_server.objects import Objects, open_objects
from manifest_server.sqlstore import SqlStore
from manifest_server.tables import blobs

MakeManifest = Callable[..., Manifest]

AT_ONCE = timedelta(0)


def referring(make_manifest: MakeManifest, *contents: bytes, **changes: object) -> Manifest:
    files = {f"{number}.py": digest_bytes(content) for number, content in enumerate(contents)}
    return make_manifest(sections={"code": {"files": files}}, **changes)


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 6 * 2**20])
def test_bytes_come_back_exactly(blob_store: SqlStore, size: int) -> None:
    content = os.urandom(size)

    digest = blob_store.blobs.put(content)
    assert blob_store.blobs.put(content) == digest

    assert digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert blob_store.blobs.get(digest) == content
    assert blob_store.blobs.find(digest).size == size


def test_what_nobody_put_is_not_found(blob_store: SqlStore) -> None:
    digest = digest_bytes(b"never put")

    assert blob_store.blobs.lacking([digest]) == [digest]
    with pytest.raises(BlobNotFound):
        blob_store.blobs.get(digest)


def test_what_a_run_refers_to_stays_and_goes_with_it(
    blob_store: SqlStore, objects: Objects | None, make_manifest: MakeManifest
) -> None:
    kept, gone = (blob_store.blobs.put(content) for content in (b"kept", b"gone"))
    staying = referring(make_manifest, b"kept")
    leaving = referring(make_manifest, b"kept", b"gone")
    blob_store.put_runs([(staying, None), (leaving, None)])

    assert blob_store.collect(grace=AT_ONCE) == 0
    blob_store.delete_run(leaving.id)
    assert blob_store.collect(grace=AT_ONCE) == 3  # the blob, the section that named it, its setup

    assert blob_store.blobs.get(kept) == b"kept"
    assert blob_store.blobs.lacking([kept, gone]) == [gone]
    with pytest.raises(BlobNotFound):
        blob_store.blobs.get(gone)
    if objects is not None:
        with pytest.raises(StoreUnusable, match="not found"):
            objects.read(gone, 0, 1)
    assert blob_store.blobs.put(b"gone") == gone
    assert blob_store.blobs.get(gone) == b"gone"


def test_what_is_a_runs_own_refers_to_blobs_too(
    store: SqlStore, make_manifest: MakeManifest
) -> None:
    digest = store.blobs.put(b"weights")
    run = make_manifest(sections={"config": {"start": digest}})
    store.put_runs([(run, None), (make_manifest(), None)])

    assert store.collect(grace=AT_ONCE) == 0
    assert store.blobs.get(digest) == b"weights"
    store.delete_run(run.id)
    assert store.collect(grace=AT_ONCE) == 1


def test_a_blob_that_no_run_refers_to_yet_is_kept_for_some_time(store: SqlStore) -> None:
    digest = store.blobs.put(b"before its run")

    assert store.collect() == 0
    assert store.blobs.lacking([digest]) == []
    let_pass(store, timedelta(hours=13))
    assert store.blobs.lacking([digest]) == [digest]  # putting it again begins its day anew
    store.blobs.put(b"before its run")
    let_pass(store, timedelta(hours=13))
    assert store.collect() == 0
    let_pass(store, timedelta(hours=13))
    assert store.collect() == 1


def let_pass(store: SqlStore, time: timedelta) -> None:
    """Have unused blobs be unused for longer."""
    microseconds = time // timedelta(microseconds=1)
    with transaction(store._engine, is_writing=True) as connection:
        connection.exec_driver_sql(f"UPDATE blobs SET unused_since = unused_since - {microseconds}")


def test_a_run_that_is_put_after_its_blob_grew_old_still_keeps_it(
    store: SqlStore, make_manifest: MakeManifest
) -> None:
    digest = store.blobs.put(b"old")
    let_pass(store, timedelta(days=2))
    store.put_run(referring(make_manifest, b"old"))

    assert store.collect() == 0
    assert store.blobs.lacking([digest]) == []


def test_a_project_reads_only_what_its_own_runs_refer_to(
    store: SqlStore, make_manifest: MakeManifest
) -> None:
    shared, own, trail = (store.blobs.put(each) for each in (b"shared", b"own", b"trail"))
    ranks = {"main.x1": {"sections": {"code": {"files": {"own.py": own}}}}}
    theirs = referring(make_manifest, b"shared", project="theirs", processes=ranks)
    store.put_run(theirs)
    store.trails.put_rows(theirs.id, "main", HEADER, start=0)
    store.trails.put_file(theirs.id, "main", "tensors", trail)

    for digest in (shared, own, trail):
        assert store.blobs.find(digest, project="theirs").digest == digest
        with pytest.raises(BlobNotFound):
            store.blobs.find(digest, project="mine")
    # It must send what it cannot see, so that nobody learns what others have.
    assert store.blobs.lacking([shared, own], project="mine") == [shared, own]
    assert store.blobs.lacking([shared, own], project="theirs") == []


HEADER = (
    b'{"schema": 1, "algorithm": "xxh3-128+ml32x2", '
    b'"streams": ["rng", "batch", "loss", "grad", "param"], "row": 80}\n'
)


def test_a_blob_that_is_put_while_others_are_collected_is_whole(
    blob_store: SqlStore, make_manifest: MakeManifest
) -> None:
    content = os.urandom(10_000)

    def put() -> None:
        for _ in range(10):
            run = referring(make_manifest, content, id=new_run_id())
            digest = blob_store.blobs.put(content)
            blob_store.put_run(run)
            assert blob_store.blobs.get(digest) == content
            blob_store.delete_run(run.id)

    def collect() -> None:
        for _ in range(10):
            blob_store.collect(grace=timedelta(seconds=30))

    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(work) for work in (put, put, collect)]:
            done.result()


def test_a_blob_whose_writer_died_is_no_blob_and_is_healed_by_the_next(
    blob_store: SqlStore, objects: Objects | None
) -> None:
    content = b"cut short"
    digest = digest_bytes(content)
    if objects is not None:
        objects.put(digest, io.BytesIO(content[:3]), 3)
    else:
        blob_store.blobs.put(content)
        with transaction(blob_store._engine, is_writing=True) as connection:
            connection.execute(update(blobs).values(place=None))

    assert blob_store.blobs.lacking([digest]) == [digest]
    blob_store.blobs.put(content)
    assert blob_store.blobs.get(digest) == content


def test_a_blob_kept_elsewhere_is_not_found_without_the_setting(
    store_url: str, store: SqlStore, tmp_path: Path
) -> None:
    with SqlStore.open(store_url, objects=open_objects(tmp_path.as_uri())) as elsewhere:
        digest = elsewhere.blobs.put(b"elsewhere")

    with pytest.raises(StoreUnusable, match="MANIFEST_SERVER_BLOB_URL"):
        store.blobs.get(digest)


@pytest.mark.parametrize(
    "url", ["ftp://host/x", "memory:///", "relative", "s3://", "s3://b?a=1", "file://host/x"]
)
def test_another_kind_of_place_is_refused(url: str) -> None:
    with pytest.raises(StoreUnusable, match="s3://bucket/prefix or file:///folder"):
        open_objects(url)


def test_a_place_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnusable, match="cannot be kept"):
        open_objects((tmp_path / "file").as_uri())


@pytest.mark.usefixtures("s3_account")
def test_a_wrong_account_is_named_as_the_fault(
    s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    place = open_objects("s3://bucket", endpoint=s3_endpoint)
    with pytest.raises(StoreUnusable, match="these credentials"):
        place.put(digest_bytes(b"x"), io.BytesIO(b"x"), 1)
