"""Trails come back byte for byte, and are compared as those of run directories are."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manifest.comparing import compare_trails
from manifest.errors import (
    NewerSchema,
    RunNotFound,
    SegmentsLacking,
    TrailDiffers,
    TrailGap,
    TrailInvalid,
    TrailNotFound,
)
from manifest.identity import new_run_id
from manifest.models import Manifest
from manifest.segments import SEGMENT_STEPS
from manifest.streams import DIGEST_SIZE, ROW_SIZE, STREAMS
from manifest.trail import Ending, Trail, TrailWriter
from manifest_migrations.upgrade import open_store
from manifest_server.database import sqlite_url
from manifest_server.sqlstore import SqlStore

MakeManifest = Callable[..., Manifest]
Change = Callable[[int], Mapping[str, bytes]]

UNOBSERVED = bytes(DIGEST_SIZE)


def digests(step: int) -> dict[str, bytes]:
    return {stream: hashlib.md5(f"{stream} {step}".encode()).digest() for stream in STREAMS}


def write(path: Path, steps: int, *, changes: Mapping[int, Mapping[str, bytes]]) -> Path:
    """Record a trail of so many steps, some of them other than usual."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = TrailWriter(path)
    for step in range(steps):
        row = digests(step) | dict(changes.get(step, {}))
        writer.append(*(row[stream] for stream in STREAMS))
        if step % 500 == 0:
            value = changes.get(step, {}).get("param", digests(step)["param"])
            writer.append_leaves(step, "param", ("a", "b"), [UNOBSERVED, value])
    writer.close(Ending(rng={"python": "12"}, tensors={"a": "00"}))
    return path


def put(store: SqlStore, run_id: str, path: Path) -> None:
    """Put all that lies in a folder of trails."""
    process = path.stem
    content = path.read_bytes()
    header = content.index(b"\n") + 1
    part = 3 * SEGMENT_STEPS
    store.trails.put_rows(run_id, process, content[: header + part * ROW_SIZE], start=0)
    steps = (len(content) - header) // ROW_SIZE
    for start in range(part, steps, part):
        begin = header + start * ROW_SIZE
        body = content[begin : begin + part * ROW_SIZE]
        store.trails.put_rows(run_id, process, body, start=start)
    for beside in path.parent.glob(f"{process}.*"):
        if beside != path and beside.stem == process:
            digest = store.blobs.put(beside.read_bytes())
            store.trails.put_file(run_id, process, beside.suffix[1:], digest)


@pytest.fixture
def run_id(store: SqlStore, make_manifest: MakeManifest) -> str:
    manifest = make_manifest()
    store.put_run(manifest)
    return manifest.id


def file_of(store: SqlStore, run_id: str, process: str = "main") -> bytes:
    rows = store.trails.rows(run_id, store.trails.find(run_id, process))
    return store.trails.header(run_id, process) + b"".join(rows)


@pytest.mark.parametrize("steps", [0, 1, 1023, 1024, 1025, 7000])
def test_rows_come_back_byte_for_byte(
    store: SqlStore, run_id: str, tmp_path: Path, steps: int
) -> None:
    path = write(tmp_path / "trail" / "main.bin", steps, changes={})
    put(store, run_id, path)
    put(store, run_id, path)

    assert file_of(store, run_id) == path.read_bytes()
    (kept,) = store.trails.list(run_id)
    assert (kept.process, kept.steps) == ("main", steps)
    beside = {p.suffix[1:]: p.read_bytes() for p in path.parent.iterdir() if p != path}
    assert {name: store.blobs.get(digest) for name, digest in kept.files.items()} == beside
    trail = store.trails.opened(run_id)["main"]
    assert trail.steps == steps
    assert trail.rows(0, steps) == Trail.open(path).rows(0, steps)
    assert trail.final == Ending(rng={"python": "12"}, tensors={"a": "00"})


def test_rows_are_sent_as_they_come(store: SqlStore, run_id: str, tmp_path: Path) -> None:
    content = write(tmp_path / "main.bin", 3000, changes={}).read_bytes()
    header = content.index(b"\n") + 1

    def send(start: int, stop: int) -> int:
        begin = header + start * ROW_SIZE if start else 0
        body = content[begin : header + stop * ROW_SIZE]
        return store.trails.put_rows(run_id, "main", body, start=start)

    assert [send(0, 10), send(0, 1500), send(0, 700), send(1024, 1600)] == [10, 1500, 1500, 1600]
    assert [send(1024, 2048), send(2048, 3000)] == [2048, 3000]
    assert file_of(store, run_id) == content


def test_a_part_that_does_not_follow_is_refused_with_where_to_go_on(
    store: SqlStore, run_id: str, tmp_path: Path
) -> None:
    content = write(tmp_path / "main.bin", 1500, changes={}).read_bytes()
    store.trails.put_rows(run_id, "main", content, start=0)

    with pytest.raises(TrailGap, match="from step 1024 on") as refused:
        store.trails.put_rows(run_id, "main", bytes(ROW_SIZE), start=2048)
    assert refused.value.kept == 1024


@pytest.mark.parametrize("step", [0, 5, 1024, 1499])
def test_rows_that_are_kept_never_change(
    store: SqlStore, run_id: str, tmp_path: Path, step: int
) -> None:
    content = write(tmp_path / "main.bin", 1500, changes={}).read_bytes()
    other = write(tmp_path / "other.bin", 2000, changes={step: {"loss": b"x" * 16}}).read_bytes()
    store.trails.put_rows(run_id, "main", content, start=0)

    with pytest.raises(TrailDiffers):
        store.trails.put_rows(run_id, "main", other, start=0)
    with pytest.raises(TrailDiffers):
        store.trails.put_rows(run_id, "main", content.replace(b"xxh3", b"yyh3"), start=0)
    assert file_of(store, run_id) == content


HEADER = {"schema": 1, "algorithm": "a", "streams": STREAMS, "row": ROW_SIZE}


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "comes? with the first line"),
        (bytes(ROW_SIZE), "first line"),
        (b"\n", "first line of a trail"),
        (b"[]\n", "first line of a trail"),
        (b'{"schema": "x"}\n', "first line of a trail"),
        (json.dumps(HEADER | {"row": 81}).encode() + b"\n", "rows of 80 bytes"),
        (json.dumps(HEADER | {"streams": ["loss"]}).encode() + b"\n", "rows of 80 bytes"),
        (json.dumps(HEADER).encode() + b"\n" + bytes(79), "79 bytes"),
        (b" " * 5000 + json.dumps(HEADER).encode() + b"\n", "first line"),
    ],
)
def test_what_is_no_trail_is_refused(store: SqlStore, run_id: str, body: bytes, fault: str) -> None:
    with pytest.raises(TrailInvalid, match=fault):
        store.trails.put_rows(run_id, "main", body, start=0)
    assert store.trails.list(run_id) == []


def test_what_has_no_place_is_refused(store: SqlStore, run_id: str) -> None:
    header = json.dumps(HEADER).encode() + b"\n"
    newer = json.dumps(HEADER | {"schema": 2}).encode() + b"\n"
    with pytest.raises(NewerSchema):
        store.trails.put_rows(run_id, "main", newer, start=0)
    with pytest.raises(RunNotFound):
        store.trails.put_rows(new_run_id(), "main", header, start=0)
    with pytest.raises(TrailNotFound):
        store.trails.put_rows(run_id, "main", bytes(ROW_SIZE), start=1024)
    with pytest.raises(TrailNotFound):
        store.trails.put_file(run_id, "main", "tensors", store.blobs.put(b""))
    with pytest.raises(TrailNotFound):
        store.trails.find(run_id, "main")
    for process in ("", "..", "a/b", "a\0", ".hidden", "x" * 129):
        with pytest.raises(TrailInvalid):
            store.trails.put_rows(run_id, process, header, start=0)
    store.trails.put_rows(run_id, "main", header, start=0)
    for suffix in ("", "bin", "../x", "a.b", "X"):
        with pytest.raises(TrailInvalid):
            store.trails.put_file(run_id, "main", suffix, store.blobs.put(b""))


def test_what_lies_beside_the_rows_is_replaced_and_the_old_collected(
    store: SqlStore, run_id: str
) -> None:
    store.trails.put_rows(run_id, "main", json.dumps(HEADER).encode() + b"\n", start=0)
    old, new = store.blobs.put(b"old"), store.blobs.put(b"new")
    store.trails.put_file(run_id, "main", "final", old)
    store.trails.put_file(run_id, "main", "final", new)

    assert store.trails.find(run_id, "main").files == {"final": new}
    assert store.collect(grace=timedelta(0)) == 1
    assert store.blobs.lacking([old, new]) == [old]


@pytest.mark.parametrize("unobserved", [[], ["loss", "grad"]])
def test_an_identical_run_sends_no_rows(
    store: SqlStore,
    run_id: str,
    make_manifest: MakeManifest,
    tmp_path: Path,
    unobserved: list[str],
) -> None:
    changes = dict.fromkeys(range(2500), dict.fromkeys(unobserved, UNOBSERVED))
    path = write(tmp_path / "main.bin", 2500, changes=changes)
    content = path.read_bytes()
    header = content.index(b"\n") + 1
    put(store, run_id, path)
    rows = content[header:]
    size = SEGMENT_STEPS * ROW_SIZE
    keys = [
        hashlib.sha256(rows[start : start + size]).hexdigest()[:32]
        for start in range(0, len(rows), size)
    ]
    again = make_manifest()
    store.put_run(again)

    assert store.trails.lacking([*keys, "0" * 32]) == ["0" * 32]
    store.trails.put_rows(again.id, "main", content[:header], start=0)
    assert store.trails.put_known(again.id, "main", keys, start=0) == 2500
    assert file_of(store, again.id) == content
    with pytest.raises(SegmentsLacking) as refused:
        store.trails.put_known(again.id, "main", ["0" * 32], start=2048)
    assert refused.value.keys == ["0" * 32]
    with pytest.raises(TrailInvalid):  # a short one in the middle
        store.trails.put_known(again.id, "main", [keys[2], keys[0]], start=1024)


def test_segments_of_other_projects_are_not_known(
    store: SqlStore, run_id: str, make_manifest: MakeManifest, tmp_path: Path
) -> None:
    content = write(tmp_path / "main.bin", 5, changes={}).read_bytes()
    header = content.index(b"\n") + 1
    store.trails.put_rows(run_id, "main", content, start=0)
    key = hashlib.sha256(content[header:]).hexdigest()[:32]
    mine = make_manifest(project="mine")
    store.put_run(mine)
    store.trails.put_rows(mine.id, "main", content[:header], start=0)

    assert store.trails.lacking([key], project="mine") == [key]
    assert store.trails.lacking([key], project="digits") == []
    with pytest.raises(SegmentsLacking):
        store.trails.put_known(mine.id, "main", [key], start=0, project="mine")


def test_rows_go_with_the_last_run_that_has_them(
    store: SqlStore, make_manifest: MakeManifest, tmp_path: Path
) -> None:
    path = write(tmp_path / "trail" / "main.bin", 2000, changes={})
    runs = [make_manifest() for _ in range(2)]
    store.put_runs((run, None) for run in [*runs, make_manifest()])
    for run in runs:
        put(store, run.id, path)

    store.delete_run(runs[0].id)
    assert store.collect(grace=timedelta(0)) == 0
    assert file_of(store, runs[1].id) == path.read_bytes()
    store.delete_run(runs[1].id)
    files = len(list(path.parent.iterdir())) - 1
    assert store.collect(grace=timedelta(0)) == 2 + files


def test_rows_that_come_while_others_send_and_collect_them_stay_whole(
    store: SqlStore, make_manifest: MakeManifest, tmp_path: Path
) -> None:
    content = write(tmp_path / "main.bin", 20 * SEGMENT_STEPS, changes={}).read_bytes()
    header = content[: content.index(b"\n") + 1]
    size = SEGMENT_STEPS * ROW_SIZE
    parts = [content[start : start + size] for start in range(len(header), len(content), size)]

    def put_and_delete(number: int) -> None:
        chance = random.Random(number)
        for _ in range(8):
            run, body = make_manifest(), header + b"".join(chance.sample(parts, 8))
            store.put_run(run)
            assert store.trails.put_rows(run.id, "main", body, start=0) == 8 * SEGMENT_STEPS
            assert file_of(store, run.id) == body
            store.delete_run(run.id)

    def collect() -> None:
        for _ in range(30):
            store.collect()

    with ThreadPoolExecutor() as pool:
        works = [pool.submit(put_and_delete, number) for number in range(4)]
        for done in [*works, pool.submit(collect)]:
            done.result()


CASES: dict[str, Mapping[int, Mapping[str, bytes]]] = {
    "equal": {},
    "first step": {0: {"batch": b"x" * 16}},
    "generators at the start": {0: {"rng": b"x" * 16, "loss": b"x" * 16}},
    "third segment": {2100: {"grad": b"x" * 16}, 2500: {"loss": b"x" * 16}},
    "parameter with leaves": {2500: {"param": b"x" * 16}},
    "last step": {4199: {"param": b"x" * 16}},
    "seen by one alone": {7: {"loss": UNOBSERVED}},
    "seen by one alone, then other": {7: {"loss": UNOBSERVED}, 3000: {"loss": b"x" * 16}},
    "never seen": {step: {"loss": UNOBSERVED} for step in range(4200)},
    "seen by one, everywhere, then other": {
        step: {"loss": UNOBSERVED, "grad": b"x" * 16 if step == 4100 else digests(step)["grad"]}
        for step in range(4200)
    },
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("length", [4200, 3000])
def test_a_comparison_says_what_that_of_run_directories_says(
    store: SqlStore, make_manifest: MakeManifest, tmp_path: Path, name: str, length: int
) -> None:
    paths = {
        "a": [write(tmp_path / "a" / "main.bin", 4200, changes={})],
        "b": [write(tmp_path / "b" / "main.bin", length, changes=CASES[name])],
    }

    assert_same(store, make_manifest, paths)


def test_the_earliest_of_several_processes_is_found(
    store: SqlStore, make_manifest: MakeManifest, tmp_path: Path
) -> None:
    late, early = {3000: {"loss": b"x" * 16}}, {2000: {"loss": b"x" * 16}}
    unseen = {1: {"grad": UNOBSERVED}, **early}
    paths = {
        "a": [write(tmp_path / "a" / f"main{x}.bin", 3500, changes={}) for x in ("", ".x0")],
        "b": [
            write(tmp_path / "b" / "main.bin", 3500, changes=late),
            write(tmp_path / "b" / "main.x0.bin", 3500, changes=unseen),
            write(tmp_path / "b" / "main.x1.bin", 9000, changes={}),
        ],
    }

    assert_same(store, make_manifest, paths)


_cells = st.dictionaries(
    st.sampled_from(STREAMS), st.sampled_from([UNOBSERVED, b"x" * 16, b"y" * 16]), max_size=3
)
_changes = st.dictionaries(st.sampled_from([0, 1, 999, 1023, 1024, 2047, 2048, 2300]), _cells)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=_changes, after=_changes, length=st.sampled_from([1024, 2301, 2400]))
def test_any_two_trails_are_compared_alike(
    make_manifest: MakeManifest,
    tmp_path: Path,
    before: Mapping[int, Mapping[str, bytes]],
    after: Mapping[int, Mapping[str, bytes]],
    length: int,
) -> None:
    folder = tmp_path / str(random.getrandbits(64))
    paths = {
        "a": [write(folder / "a" / "main.bin", 2400, changes=before)],
        "b": [write(folder / "b" / "main.bin", length, changes=after)],
    }
    with open_store(sqlite_url(tmp_path / "store.db")) as store:
        assert_same(store, make_manifest, paths)


def assert_same(
    store: SqlStore, make_manifest: MakeManifest, paths: Mapping[str, Iterable[Path]]
) -> None:
    """Compare stored trails, and the same as they lie in folders."""
    runs = {side: make_manifest() for side in paths}
    for side, run in runs.items():
        store.put_run(run)
        for path in paths[side]:
            put(store, run.id, path)
    opened = {side: {path.stem: Trail.open(path) for path in paths[side]} for side in paths}
    expected = compare_trails(opened["a"], opened["b"])

    assert store.trails.compare(runs["a"].id, runs["b"].id) == expected
    before, after = (store.trails.opened(runs[side].id) for side in ("a", "b"))
    assert compare_trails(before, after) == expected


def test_a_run_without_trails_is_not_called_equal(
    store: SqlStore, run_id: str, make_manifest: MakeManifest
) -> None:
    other = make_manifest()
    store.put_run(other)

    found = store.trails.compare(run_id, other.id)
    assert (found.streams, found.steps, found.divergence) == ((), 0, None)


@pytest.mark.parametrize(
    "content",
    [b"N" + bytes(3) + (5).to_bytes(4, "little") + bytes(8) + b"{nul]", b"\xff" * 99],
    ids=["no names", "no frames"],
)
def test_hostile_bytes_beside_the_rows_are_refused(
    store: SqlStore, make_manifest: MakeManifest, tmp_path: Path, content: bytes
) -> None:
    runs = [make_manifest() for _ in range(2)]
    for number, run in enumerate(runs):
        path = write(
            tmp_path / str(number) / "main.bin", 3, changes={2: {"loss": bytes([number] * 16)}}
        )
        path.with_suffix(".tensors").write_bytes(content)
        store.put_run(run)
        put(store, run.id, path)

    try:
        found = store.trails.compare(runs[0].id, runs[1].id)
    except TrailInvalid:
        return
    assert found.steps == 3
