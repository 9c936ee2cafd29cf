"""Trails are put, got and compared over HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from manifest.comparing import compare_trails
from manifest.models import Manifest, TrailComparison
from manifest.streams import ROW_SIZE, STREAMS
from manifest.trail import Ending, Trail, TrailWriter
from manifest_server.app import create_app
from manifest_server.settings import ServerSettings
from manifest_server.sqlstore import SqlStore

MakeManifest = Callable[..., Manifest]

STEPS = 2100
OTHER_STEP = 1500


@pytest.fixture(scope="module")
def trail_paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The trails of two runs that go apart."""
    paths = [tmp_path_factory.mktemp(name) / "main.bin" for name in "ab"]
    for path in paths:
        writer = TrailWriter(path)
        for step in range(STEPS):
            row = {s: hashlib.md5(f"{s} {step}".encode()).digest() for s in STREAMS}
            if step >= OTHER_STEP:
                row["grad"] = hashlib.md5(path.parent.name.encode()).digest()
            writer.append(*(row[stream] for stream in STREAMS))
        writer.close(Ending(tensors={"weight": "12"}))
    return paths[0], paths[1]


def put_run(client: TestClient, manifest: Manifest) -> str:
    body = manifest.model_dump_json(by_alias=True, exclude_unset=True)
    assert client.put(f"/api/v1/runs/{manifest.id}", content=body).status_code == 200
    return f"/api/v1/runs/{manifest.id}/trails"


def put_trail(client: TestClient, address: str, path: Path) -> None:
    content = path.read_bytes()
    answer = client.put(f"{address}/main", params={"start": 0}, content=content)
    assert (answer.status_code, answer.json()) == (200, {"steps": STEPS})
    final = path.with_suffix(".final").read_bytes()
    assert client.put(f"{address}/main/files/final", content=final).status_code == 204


def test_gives_back_the_files_byte_for_byte(
    client: TestClient, make_manifest: MakeManifest, trail_paths: tuple[Path, Path]
) -> None:
    address = put_run(client, make_manifest())
    put_trail(client, address, trail_paths[0])

    (listed,) = client.get(address).json()
    assert (listed["process"], listed["steps"], list(listed["files"])) == ("main", STEPS, ["final"])
    rows = client.get(f"{address}/main")
    assert rows.content == trail_paths[0].read_bytes()
    assert rows.headers["content-length"] == str(len(rows.content))
    final = client.get(f"{address}/main/files/final")
    assert final.content == trail_paths[0].with_suffix(".final").read_bytes()


def test_finds_where_two_runs_went_apart(
    client: TestClient, make_manifest: MakeManifest, trail_paths: tuple[Path, Path]
) -> None:
    runs = [make_manifest() for _ in trail_paths]
    for run, path in zip(runs, trail_paths, strict=True):
        put_trail(client, put_run(client, run), path)

    answer = client.get("/api/v1/divergence", params={"a": runs[0].id, "b": runs[1].id})

    found = TrailComparison.model_validate_json(answer.content)
    before, after = ({"main": Trail.open(path)} for path in trail_paths)
    assert found == compare_trails(before, after)
    assert found.divergence is not None
    assert (found.divergence.step, found.divergence.stream) == (OTHER_STEP, "grad")


def test_takes_rows_that_it_knows_by_their_names(
    client: TestClient, make_manifest: MakeManifest, trail_paths: tuple[Path, Path]
) -> None:
    put_trail(client, put_run(client, make_manifest()), trail_paths[0])
    content = trail_paths[0].read_bytes()
    start = content.index(b"\n") + 1
    size = 1024 * ROW_SIZE
    keys = [
        hashlib.sha256(content[begin : begin + size]).hexdigest()[:32]
        for begin in range(start, len(content), size)
    ]
    address = put_run(client, make_manifest())
    client.put(f"{address}/main", params={"start": 0}, content=content[:start])

    known = client.put(f"{address}/main/segments", params={"start": 0}, json={"segments": keys})
    assert known.json() == {"steps": STEPS}
    assert client.get(f"{address}/main").content == content
    lacking = client.put(
        f"{address}/main/segments", params={"start": 0}, json={"segments": ["0" * 32]}
    )
    assert (lacking.status_code, lacking.json()["code"]) == (409, "segments-lacking")
    assert lacking.json()["errors"] == [{"segment": "0" * 32}]


@pytest.mark.parametrize(
    ("path", "start", "body", "status", "code"),
    [
        ("main", 0, b"", 422, "trail-invalid"),
        ("main", 1, bytes(80), 422, "input-invalid"),
        ("main", 2048, bytes(80), 404, "trail-not-found"),
        ("kept", 2048, bytes(80), 409, "trail-gap"),
        ("kept", 1024, bytes(79), 422, "trail-invalid"),
        ("kept", 0, b'{"schema": 9, "algorithm": "x"}\n', 422, "newer-schema"),
        ("..%2f..%2fetc", 0, b"", 404, "not-found"),
    ],
)
def test_refuses_what_has_no_place_with_a_code(
    client: TestClient,
    make_manifest: MakeManifest,
    trail_paths: tuple[Path, Path],
    path: str,
    start: int,
    body: bytes,
    status: int,
    code: str,
) -> None:
    address = put_run(client, make_manifest())
    content = trail_paths[0].read_bytes()
    end = content.index(b"\n") + 1 + 1500 * ROW_SIZE
    client.put(f"{address}/kept", params={"start": 0}, content=content[:end])

    answer = client.put(f"{address}/{path}", params={"start": start}, content=body)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    if code == "trail-gap":
        assert answer.json()["errors"] == [{"start": 1024}]


def test_refuses_other_rows(
    client: TestClient, make_manifest: MakeManifest, trail_paths: tuple[Path, Path]
) -> None:
    address = put_run(client, make_manifest())
    put_trail(client, address, trail_paths[0])

    other = client.put(f"{address}/main", params={"start": 0}, content=trail_paths[1].read_bytes())
    assert (other.status_code, other.json()["code"]) == (409, "trail-differs")


def test_refuses_too_many_rows_at_once(
    store_url: str, make_manifest: MakeManifest, trail_paths: tuple[Path, Path]
) -> None:
    app = create_app(ServerSettings(database_url=store_url, most_row_bytes=1000))
    with TestClient(app, base_url="http://localhost") as client:
        address = put_run(client, make_manifest())
        content = trail_paths[0].read_bytes()
        answer = client.put(f"{address}/main", params={"start": 0}, content=content)
    assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")


def test_shows_a_project_no_trail_of_another(
    store_url: str, make_manifest: MakeManifest, trail_paths: tuple[Path, Path]
) -> None:
    mine, theirs = make_manifest(project="mine"), make_manifest(project="theirs")
    with SqlStore.open(store_url) as store:
        _, secret = store.create_token(name="me", scopes=["write"], project="mine")
        store.put_runs([(mine, None), (theirs, None)])
        store.trails.put_rows(theirs.id, "main", trail_paths[0].read_bytes(), start=0)
    app = create_app(ServerSettings(database_url=store_url, auth="tokens"))
    with TestClient(app, base_url="http://localhost") as client:
        client.headers["Authorization"] = f"Bearer {secret}"
        address = f"/api/v1/runs/{theirs.id}/trails"
        answers = [
            client.get(address),
            client.get(f"{address}/main"),
            client.put(f"{address}/main", params={"start": 0}, content=b"{}\n"),
            client.put(
                f"{address}/main/segments", params={"start": 0}, json={"segments": ["0" * 32]}
            ),
            client.put(f"{address}/main/files/final", content=b""),
            client.get(f"{address}/main/files/final"),
            client.get("/api/v1/divergence", params={"a": mine.id, "b": theirs.id}),
        ]
    assert [(a.status_code, a.json()["code"]) for a in answers] == [(404, "run-not-found")] * 7
