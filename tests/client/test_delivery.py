"""A run directory reaches a service whole, or is not acknowledged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from manifest.canonical import digest_bytes
from manifest.delivered import FILE, acknowledged, is_delivered
from manifest.errors import DamagedRun
from manifest.models import Manifest
from manifest.rundir import RunDirectory
from manifest.trail import Ending, TrailWriter
from manifest_client.connection import API, Client
from manifest_client.delivery import deliver
from manifest_client.httpstore import HttpStore
from manifest_client.problems import ServiceUnreachable
from manifest_migrations.upgrade import open_store
from manifest_server.app import create_app
from manifest_server.database import sqlite_url
from manifest_server.settings import ServerSettings

URL = "http://localhost"
GOLDEN = Path("manifest/golden/schema-1/01990000-0000-7000-8000-000000000001")
Record = Callable[..., RunDirectory]


@pytest.fixture
def http(tmp_path: Path) -> Iterator[TestClient]:
    url = sqlite_url(tmp_path / "service.db").render_as_string()
    open_store(url).close()
    app = create_app(ServerSettings(database_url=url))
    with TestClient(app, base_url=URL) as opened:
        yield opened


@pytest.fixture
def client(http: TestClient) -> Client:
    return Client(URL, http=http, pause=lambda _: None)


@pytest.fixture
def golden(tmp_path: Path, checkout: Path) -> RunDirectory:
    """A run that a released version wrote, with blobs and a trail."""
    path = tmp_path / "runs" / GOLDEN.name
    shutil.copytree(checkout / "tests" / GOLDEN, path)
    return RunDirectory(path)


def write_trail(run: RunDirectory, steps: int, *, is_over: bool = True) -> None:
    writer = TrailWriter(run.trail_path("main"))
    for step in range(steps):
        writer.append(*(step.to_bytes(15, "big") + bytes([1 + n]) for n in range(5)))
    writer.append_leaves(0, "param", ("w",), [bytes(range(16))])
    if is_over:
        writer.close(Ending(rng={"torch": "ab"}))


def kept_rows(http: TestClient, run: RunDirectory) -> bytes:
    return http.get(f"{API}/runs/{run.id}/trails/main").content


def noted(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, bytes]]:
    """Every request from now on: method, path and body."""
    sent: list[tuple[str, str, bytes]] = []
    request = http.request

    def noting(method: str, url: str, **options: Any) -> httpx2.Response:
        content = options.pop("content", None) or b""
        body = content if isinstance(content, bytes) else b"".join(content)
        sent.append((method, url.removeprefix(URL + API), body))
        return request(method, url, content=body, **options)

    monkeypatch.setattr(http, "request", noting)
    return sent


def test_a_run_is_there_with_everything(
    http: TestClient, client: Client, golden: RunDirectory
) -> None:
    assert deliver(golden, client)

    manifest = Manifest.model_validate(golden.document())
    assert HttpStore(client).get_run(golden.id) == manifest
    for path in golden.path.glob("blobs/*/*"):
        assert http.get(f"{API}/blobs/sha256:{path.name}").content == path.read_bytes()
    assert kept_rows(http, golden) == golden.trail_path("main").read_bytes()
    for suffix in ("tensors", "final"):
        beside = http.get(f"{API}/runs/{golden.id}/trails/main/files/{suffix}").content
        assert beside == (golden.path / "trail" / f"main.{suffix}").read_bytes()
    assert is_delivered(golden, URL)
    assert acknowledged(golden) == {URL: {"manifest": manifest.digest, "verdict": ""}}


def test_what_is_acknowledged_is_not_sent_again(
    http: TestClient, client: Client, golden: RunDirectory
) -> None:
    deliver(golden, client)
    http.close()
    assert deliver(golden, Client(URL, http=http))


def test_a_lost_acknowledgement_sends_nothing_that_is_there(
    http: TestClient, client: Client, golden: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(golden, client)
    (golden.path / FILE).unlink()
    sent = noted(http, monkeypatch)
    assert deliver(golden, client)
    assert [(method, path) for method, path, _ in sent] == [
        ("POST", "/lacking"),
        ("PUT", f"/runs/{golden.id}"),
        ("GET", f"/runs/{golden.id}/trails"),
    ]
    assert json.loads(sent[1][2])["sections"].keys() < golden.document()["sections"].keys()


def test_a_run_is_sent_as_it_grows_and_then_once_more(
    http: TestClient, client: Client, record: Record
) -> None:
    run = record(is_over=False)  # by this process, which lives
    write_trail(run, 1500, is_over=False)
    assert not deliver(run, client)
    assert HttpStore(client).get_run(run.id).status == "running"
    assert not acknowledged(run)
    shutil.rmtree(run.path / "trail")
    (run.path / "trail").mkdir()
    write_trail(run, 3000)
    run.write_manifest()
    assert deliver(run, client)
    assert HttpStore(client).digests([run.id]) == {run.id: run.document()["digest"]}
    assert kept_rows(http, run) == run.trail_path("main").read_bytes()


def test_rows_of_a_torn_trail_are_sent_as_far_as_they_are_whole(
    http: TestClient, client: Client, record: Record
) -> None:
    run = record()
    write_trail(run, 10)
    whole = run.trail_path("main").read_bytes()
    run.trail_path("main").write_bytes(whole[:-50])
    assert deliver(run, client)
    assert kept_rows(http, run) == whole[:-80]


def test_a_trail_that_grows_while_it_is_sent_is_sent_as_far_as_it_was_read(
    http: TestClient, client: Client, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = record(is_over=False)
    write_trail(run, 10, is_over=False)
    request = http.request

    def growing(method: str, url: str, **options: Any) -> httpx2.Response:
        if "/trails/" in url:
            with run.trail_path("main").open("ab") as file:
                file.write(bytes(range(80)) * 1500)
        return request(method, url, **options)

    monkeypatch.setattr(http, "request", growing)
    deliver(run, client)
    monkeypatch.undo()
    assert run.trail_path("main").read_bytes().startswith(kept_rows(http, run))
    run.write_manifest()
    assert deliver(run, client)
    assert kept_rows(http, run) == run.trail_path("main").read_bytes()


def test_two_runs_of_one_program_share_their_segments(
    http: TestClient, client: Client, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = record(), record()
    for run in (first, second):
        write_trail(run, 2500)
    deliver(first, client)
    sent = noted(http, monkeypatch)
    deliver(second, client)
    assert max(len(body) for _, path, body in sent if "/trails/" in path) < 500 * 80
    assert kept_rows(http, second) == second.trail_path("main").read_bytes()


@pytest.mark.parametrize("seconds", [0, 4_000_000_000])
def test_a_clock_that_is_wrong_by_decades_keeps_nothing_back(
    client: Client, record: Record, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    monkeypatch.setattr("manifest.journal._time_ns", lambda: seconds * 10**9)
    run = record()
    assert deliver(run, client)
    (listed,) = HttpStore(client).list_runs()
    assert listed.started_at.startswith("1970" if seconds == 0 else "2096")


def test_a_verdict_that_comes_later_goes_along(client: Client, record: Record) -> None:
    original = record()
    replay = record(replay_of=original.id)
    deliver(replay, client)
    verdict = {
        "outcome": "identical",
        "original": original.id,
        "replay": replay.id,
        "sentence": "All steps are equal.",
    }
    replay.put_verdict(verdict)
    assert not is_delivered(replay, URL)
    assert deliver(replay, client)
    found = HttpStore(client).get_verdict(replay.id)
    assert found is not None
    assert found.sentence == "All steps are equal."


def test_a_verdict_that_comes_while_a_run_is_read_goes_along_the_next_time(
    client: Client, record: Record
) -> None:
    original = record()
    replay = record(replay_of=original.id)

    class Late(RunDirectory):
        def verdict(self) -> dict[str, Any] | None:
            found = super().verdict()
            ended = {"outcome": "identical", "original": original.id, "sentence": "Equal."}
            self.put_verdict({**ended, "replay": replay.id})
            return found

    deliver(Late(replay.path), client)
    if is_delivered(replay, URL):
        assert HttpStore(client).get_verdict(replay.id) is not None
    assert deliver(replay, client)
    assert is_delivered(replay, URL)
    assert HttpStore(client).get_verdict(replay.id) is not None


def test_each_service_acknowledges_for_itself(client: Client, record: Record) -> None:
    run = record()
    deliver(run, client)
    assert not is_delivered(run, "http://elsewhere")
    assert is_delivered(run)


@pytest.mark.parametrize("answered", range(6))
def test_cut_off_anywhere_it_is_not_acknowledged_and_goes_on(
    http: TestClient, client: Client, golden: RunDirectory, answered: int
) -> None:
    counted = 0

    def dying(request: httpx2.Request) -> httpx2.Response:
        nonlocal counted
        counted += 1
        if counted > answered:
            raise httpx2.ReadError("the service is gone")
        content = request.read()
        found = http.request(
            request.method, str(request.url), content=content, headers=dict(request.headers)
        )
        return httpx2.Response(found.status_code, content=found.content, headers=found.headers)

    breaking = httpx2.Client(transport=httpx2.MockTransport(dying))
    files = {path: path.read_bytes() for path in golden.path.rglob("*") if path.is_file()}
    with pytest.raises(ServiceUnreachable):
        deliver(golden, Client(URL, http=breaking, pause=lambda _: None))
    assert not acknowledged(golden)
    assert files == {path: path.read_bytes() for path in golden.path.rglob("*") if path.is_file()}
    assert deliver(golden, client)
    assert HttpStore(client).get_run(golden.id) == Manifest.model_validate(golden.document())


def test_a_changed_blob_is_not_sent_for_what_it_was(client: Client, golden: RunDirectory) -> None:
    (blob,) = golden.path.glob("blobs/*/*")
    blob.write_bytes(b"something else")
    with pytest.raises(Exception, match="the bytes were changed"):
        deliver(golden, client)
    assert not acknowledged(golden)


def test_a_damaged_run_is_named(client: Client, golden: RunDirectory) -> None:
    text = (golden.path / "manifest.json").read_text()
    (golden.path / "manifest.json").write_text(text.replace('"project":"', '"project":"x'))
    with pytest.raises(DamagedRun):
        deliver(golden, client)


def test_an_acknowledgement_that_cannot_be_read_counts_for_nothing(
    client: Client, golden: RunDirectory
) -> None:
    deliver(golden, client)
    for content in ("", "[]", "{", json.dumps({URL: 5}), json.dumps({URL: {"manifest": "x"}})):
        (golden.path / FILE).write_text(content)
        assert not is_delivered(golden, URL)
    assert deliver(golden, client)


def test_the_digest_of_a_blob_is_checked_on_the_other_side(http: TestClient) -> None:
    answer = http.put(f"{API}/blobs/{digest_bytes(b'a')}", content=b"b")
    assert (answer.status_code, answer.json()["code"]) == (409, "digest-mismatch")
