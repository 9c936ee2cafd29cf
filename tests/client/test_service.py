"""The commands that speak to a service, and a real one on this machine."""

from __future__ import annotations

import json
import re
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from manifest.delivered import acknowledged, is_delivered
from manifest.identity import new_run_id
from manifest.rundir import RunDirectory
from manifest.sealing import seal_document
from manifest_client.settings import user_file
from manifest_migrations.upgrade import open_store

Record = Callable[..., RunDirectory]
GOLDEN = "01990000-0000-7000-8000-000000000001"
Service = Any  # the class is that of the fixture


class Answer(NamedTuple):
    """What a command answered; the fixture `call` gives one of this shape."""

    code: int
    out: str
    err: str


Call = Callable[..., Answer]


@pytest.fixture
def url(running: Service, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an open service without runs, in the environment."""
    running.empty()
    monkeypatch.setenv("MANIFEST_URL", running.url)
    return str(running.url)


@pytest.fixture
def golden(base: Path, checkout: Path) -> RunDirectory:
    """A run that a released version wrote, with blobs and a trail."""
    path = base / "runs" / GOLDEN
    shutil.copytree(checkout / "tests/manifest/golden/schema-1" / GOLDEN, path)
    return RunDirectory(path)


def test_sync_sends_what_is_not_acknowledged_and_then_nothing(
    call: Call, golden: RunDirectory, url: str
) -> None:
    first = call("sync")
    assert (first.code, GOLDEN in first.out) == (0, True)
    assert is_delivered(golden, url)
    assert "everything is delivered" in call("sync").out
    assert GOLDEN in call("sync", "--all").out


def test_sync_without_a_service_says_how_to_set_one_up(call: Call, golden: RunDirectory) -> None:
    answer = call("sync")
    assert answer.code == 2
    assert "manifest login" in answer.err
    assert "Invalid value" not in answer.err  # no word of the command is to blame


def test_sync_sends_nothing_where_the_mode_is_offline(
    call: Call, golden: RunDirectory, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MANIFEST_MODE", "offline")
    assert call("sync").code == 2
    assert not acknowledged(golden)


def test_sync_ends_with_4_where_nobody_answers_and_goes_on_later(
    call: Call,
    record: Record,
    make_service: Callable[[Path], Service],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = make_service(tmp_path)
    monkeypatch.setenv("MANIFEST_URL", service.url)
    monkeypatch.setattr("manifest_client.connection._FIRST_PAUSE_SECONDS", 0.001)
    runs = [record() for _ in range(3)]
    answer = call("sync")
    assert answer.code == 4
    assert "not all of 3 runs were sent" in answer.err
    service.start()
    try:
        assert call("sync").code == 0
    finally:
        service.stop()
    assert all(is_delivered(run, service.url) for run in runs)


def test_a_run_that_cannot_be_read_does_not_keep_the_others(
    call: Call, record: Record, url: str
) -> None:
    bad, good = record(), record(name="good")
    (bad.path / "manifest.json").write_text("{}")
    worse = bad.path.with_name("0199c3f2-ffff-7000-8000-000000000000")
    worse.symlink_to(worse)  # which gives an error of the system, also to root
    for options in ([], ["--all"]):
        answer = call("sync", *options)
        assert answer.code == 2
        assert f"run {bad.id} is not sent" in answer.err
        assert f"run {worse.name} is not sent" in answer.err
        assert is_delivered(good, url)


def test_runs_are_sent_side_by_side(
    call: Call, record: Record, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [record() for _ in range(6)]
    met = threading.Barrier(4)

    class Passing(socketserver.BaseRequestHandler):
        """Lets a connection pass when as many as runs are sent at once are there."""

        def handle(self) -> None:
            met.wait(60)
            with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as there:
                back = threading.Thread(target=pass_on, args=(there, self.request))
                back.start()
                pass_on(self.request, there)
                back.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Passing) as proxy:
        threading.Thread(target=proxy.serve_forever).start()
        monkeypatch.setenv("MANIFEST_URL", f"http://127.0.0.1:{proxy.server_address[1]}")
        try:
            assert call("sync").code == 0
        finally:
            met.abort()
            proxy.shutdown()

    monkeypatch.setenv("MANIFEST_URL", url)
    listed = json.loads(call("ls", "--remote", "--json").out)
    assert sorted(run["id"] for run in listed) == sorted(run.id for run in runs)


def pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(2**16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def test_two_that_send_at_once_send_everything_once(
    call: Call, record: Record, url: str, base: Path
) -> None:
    runs = [record(name=f"race {number}") for number in range(8)]
    command = [sys.executable, "-c", "from manifest_client.cli.main import main; main()", "sync"]
    senders = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [sender.wait() for sender in senders] == [0, 0]
    assert all(is_delivered(run, url) for run in runs)
    listed = json.loads(call("ls", 'name like "race %"', "--remote", "--json").out)
    assert sorted(run["id"] for run in listed) == sorted(run.id for run in runs)


def test_ls_takes_a_filter_here_and_there(call: Call, record: Record, url: str) -> None:
    record(name="low", sections={"config": {"lr": 0.1}})
    record(name="high", sections={"config": {"lr": 0.9}})
    call("sync")
    for place in ([], ["--remote"]):
        listed = json.loads(call("ls", "config.lr > 0.5", "--json", *place).out)
        assert [run["name"] for run in listed] == ["high"]


def test_ls_shows_where_a_filter_cannot_be_read(call: Call, record: Record) -> None:
    record()
    answer = call("ls", "config.lr > and")
    assert answer.code == 2
    lines = answer.err.splitlines()
    assert lines[-2] == "  config.lr > and"
    assert lines[-1].rstrip() == "  " + " " * len("config.lr > ") + "^"


def test_show_asks_the_service_for_what_is_not_here(
    call: Call, golden: RunDirectory, url: str, base: Path
) -> None:
    call("sync", "--all")
    here = call("show", GOLDEN, "--json")
    shutil.rmtree(base)
    there = call("show", GOLDEN[:20], "--json")
    assert json.loads(there.out)["manifest"] == json.loads(here.out)["manifest"]
    assert not base.exists()


def test_a_run_that_nobody_has_is_not_found(call: Call, url: str, base: Path) -> None:
    answer = call("show", "0fffffff")
    assert answer.code == 2
    assert url in answer.err
    assert call("show", "@latest").code == 2
    assert not base.exists()


def test_pull_brings_the_directory_back(
    call: Call, golden: RunDirectory, url: str, base: Path, tmp_path: Path
) -> None:
    call("sync", "--all")
    kept = tmp_path / "kept"
    base.rename(kept)

    assert call("pull", GOLDEN).code == 0

    original, pulled = RunDirectory(kept / "runs" / GOLDEN), RunDirectory(base / "runs" / GOLDEN)
    assert pulled.document() == original.document()
    for path in [*original.path.glob("trail/*"), *original.path.glob("blobs/*/*")]:
        assert (pulled.path / path.relative_to(original.path)).read_bytes() == path.read_bytes()
    told = ("entropy", "id", "pinned_os_entropy", "root", "mode", "schema", "project")
    assert [pulled.origin()[key] for key in told] == [original.origin()[key] for key in told]
    assert is_delivered(pulled, url)
    assert "everything is delivered" in call("sync").out


def test_verify_fetches_what_only_the_service_has(
    call: Call, golden: RunDirectory, url: str, base: Path
) -> None:
    call("sync", "--all")
    shutil.rmtree(base)
    answer = call("verify", GOLDEN, GOLDEN)
    assert answer.code == 0
    assert "fetched" in answer.err


def test_what_was_fetched_is_not_run_without_asking(
    call: Call, golden: RunDirectory, url: str, base: Path
) -> None:
    call("sync", "--all")
    shutil.rmtree(base)
    answer = call("replay", GOLDEN, "--best-effort")
    assert answer.code == 2
    assert "executes their code" in re.sub(r"[\s│]+", " ", answer.err)
    assert "--yes" in answer.err


def test_login_keeps_a_good_token_for_its_service(
    call: Call, guarded: Service, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = guarded.token("read", "write")
    monkeypatch.setattr("sys.stdin", StringIO(f"{secret}\n"))

    assert call("login", guarded.url).code == 0

    assert user_file().stat().st_mode & 0o777 == 0o600
    assert "ada" in call("whoami").out
    shown = call("config")
    assert secret not in shown.out
    assert str(user_file()) in shown.out
    told = json.loads(call("config", "--json").out)
    assert told["url"] == {"value": guarded.url, "source": str(user_file())}
    assert secret not in json.dumps(told)
    call("logout", guarded.url)
    assert secret not in user_file().read_text()
    assert call("whoami").code == 2


def test_login_keeps_no_token_that_is_not_good(
    call: Call, guarded: Service, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", StringIO("mft_wrong\n"))
    answer = call("login", guarded.url)
    assert answer.code == 2
    assert "unknown" in answer.err
    assert not user_file().exists()


def test_login_leaves_the_other_lines_of_the_file(
    call: Call, guarded: Service, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "# mine\ntimeout = 2 # quick\nurl = 'http://localhost:1'\n[tokens]\n'http://a' = 'x'\n"
    user_file().parent.mkdir(parents=True)
    user_file().write_text(text)
    user_file().chmod(0o600)
    secret = guarded.token("read")
    monkeypatch.setattr("sys.stdin", StringIO(secret))
    assert call("login", guarded.url).code == 0
    lines = user_file().read_text().splitlines()
    assert lines[:3] == text.splitlines()[:3]
    assert lines[3:] == ["[tokens]", '"http://a" = "x"', f'"{guarded.url}" = "{secret}"']


def test_login_at_a_service_without_tokens_asks_for_none(
    call: Call, running: Service, base: Path
) -> None:
    answer = call("login", running.url)
    assert (answer.code, "asks for no token" in answer.out) == (0, True)
    assert call("whoami", "--json").code == 0


def test_a_token_that_was_revoked_meanwhile_stops_a_sync_and_another_goes_on(
    call: Call, record: Record, guarded: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded.empty()
    monkeypatch.setenv("MANIFEST_URL", guarded.url)
    runs = [record() for _ in range(2)]
    monkeypatch.setenv("MANIFEST_TOKEN", guarded.token("write"))
    call("sync")
    later = record()
    with open_store(guarded.database) as store:
        store.revoke_token(store.list_tokens()[0].id)
    answer = call("sync")
    assert answer.code == 2
    assert "manifest login" in answer.err
    assert not acknowledged(later)
    monkeypatch.setenv("MANIFEST_TOKEN", guarded.token("write"))
    assert call("sync").code == 0
    assert all(is_delivered(run, guarded.url) for run in (*runs, later))


def test_a_token_without_the_scope_is_told_so(
    call: Call, record: Record, guarded: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    record()
    guarded.empty()
    monkeypatch.setenv("MANIFEST_URL", guarded.url)
    monkeypatch.setenv("MANIFEST_TOKEN", guarded.token("read"))
    answer = call("sync")
    assert answer.code == 2
    assert "'write'" in answer.err


def test_a_service_that_is_killed_has_lost_nothing_that_it_acknowledged(
    make_service: Callable[[Path], Service], tmp_path: Path
) -> None:
    service = make_service(tmp_path)
    service.start()
    answered: list[str] = []
    senders = [
        threading.Thread(target=_send_until_it_ends, args=(service.port, answered))
        for _ in range(8)
    ]
    for sender in senders:
        sender.start()
    while len(answered) < 50:
        assert any(sender.is_alive() for sender in senders)
    service.stop()
    for sender in senders:
        sender.join()
    with open_store(service.database) as store:
        kept = store.digests(answered)
    assert len(answered) >= 50
    assert [run_id for run_id in answered if not kept.get(run_id)] == []


def _send_until_it_ends(port: int, answered: list[str]) -> None:
    connection = HTTPConnection("127.0.0.1", port)
    with suppress(OSError, HTTPException), closing(connection):
        while True:
            document: dict[str, Any] = {
                "schema": 1,
                "id": new_run_id(),
                "project": "killed",
                "status": "finished",
                "started_at": "2025-01-31T08:00:00Z",
                "mode": "run",
                "sections": {"config": {"lr": 0.1}},
            }
            seal_document(document)
            connection.request("PUT", f"/api/v1/runs/{document['id']}", json.dumps(document))
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            answered.append(document["id"])
