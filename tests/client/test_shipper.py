"""What is recorded is delivered by a process of its own, whatever becomes of the program."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from manifest.delivered import acknowledged, is_delivered
from manifest.rundir import RunDirectory, run_directories
from manifest_client import shipper
from manifest_client.connection import Client
from manifest_client.httpstore import HttpStore
from manifest_client.shipper import LOCK, LOG, Patience, Shipper

Record = Callable[..., RunDirectory]
Service = Any  # the class is that of the fixture

QUICK = Patience(
    idle_seconds=0.05,
    unreachable_seconds=0.2,
    look_seconds=0.01,
    growth_seconds=0.05,
    longest_pause_seconds=0.05,
)
RECORDING = """
import os, sys
import manifest
run = manifest.record(project="shipped")
{}
"""


@pytest.fixture
def service(running: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    """An open service without runs, in the environment."""
    running.empty()
    monkeypatch.setenv("MANIFEST_URL", running.url)
    return running


@pytest.fixture
def base(base: Path) -> Iterator[Path]:
    """The folder of runs; the shipper that it got is ended with the test."""
    yield base
    pid = shipper_of(base)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)


def shipper_of(base: Path) -> int | None:
    """The process that delivers the runs of a folder, if one is at work."""
    try:
        file = (base / LOCK).open()
    except FileNotFoundError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read() or 0) or None
        return None


def run_program(text: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RECORDING.format(text)],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    """A client of the service."""
    with Client(service.url) as opened:
        yield opened


def only_run(base: Path) -> RunDirectory:
    (run,) = run_directories(base)
    return run


def test_a_program_that_records_itself_is_delivered_when_it_ends(
    service: Service, client: Client, base: Path
) -> None:
    ended = run_program("print('trained')", MANIFEST_TIMEOUT="60")

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "trained\n", "")
    run = only_run(base)
    assert is_delivered(run, service.url)
    assert HttpStore(client).get_run(run.id).status == "finished"


def test_a_program_under_manifest_run_is_delivered_when_it_ends(
    service: Service, base: Path
) -> None:
    command = [str(Path(sys.executable).with_name("manifest")), "run", "--", sys.executable, "-c"]
    environ = {**os.environ, "MANIFEST_TIMEOUT": "60"}
    ended = subprocess.run([*command, "5"], env=environ, capture_output=True, check=False)

    assert ended.returncode == 0
    assert b"not delivered" not in ended.stderr
    assert is_delivered(only_run(base), service.url)


def test_a_program_that_is_killed_is_delivered_as_crashed(
    service: Service, client: Client, base: Path
) -> None:
    ended = run_program(
        "import time\n"
        f"while not os.path.exists({str(base / LOCK)!r}): time.sleep(0.01)\n"
        "os.kill(os.getpid(), 9)"
    )

    assert ended.returncode == -signal.SIGKILL
    run = only_run(base)
    wait_until(lambda: is_delivered(run, service.url))
    assert HttpStore(client).get_run(run.id).status == "crashed"


def test_where_nobody_answers_the_end_says_so_and_nothing_is_lost(
    base: Path, make_service: Callable[[Path], Service], tmp_path: Path
) -> None:
    url = make_service(tmp_path).url
    ended = run_program("print('trained')", MANIFEST_URL=url, MANIFEST_TIMEOUT="0.1")

    assert (ended.returncode, ended.stdout) == (0, "trained\n")
    assert "manifest sync" in ended.stderr
    assert only_run(base).is_sealed()
    assert not acknowledged(only_run(base))
    wait_until(lambda: shipper_of(base) is not None)


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_no_process_is_started_where_the_mode_says_so(
    service: Service, base: Path, mode: str
) -> None:
    ended = run_program("", MANIFEST_MODE=mode)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert not (base / LOCK).exists()


def test_the_program_gets_no_child_that_it_did_not_start(service: Service, base: Path) -> None:
    ended = run_program(
        "import time\n"
        f"while not os.path.exists({str(base / LOCK)!r}): time.sleep(0.01)\n"
        "try: os.waitpid(-1, 0)\n"
        "except ChildProcessError: print('none')",
        MANIFEST_TIMEOUT="60",
    )
    assert (ended.returncode, ended.stdout) == (0, "none\n")


def test_the_process_that_delivers_is_not_recorded_and_is_alone(
    service: Service, base: Path
) -> None:
    for _ in range(3):
        assert run_program("", MANIFEST_TIMEOUT="60").returncode == 0
    runs = run_directories(base)
    assert len(runs) == 3
    for run in runs:
        assert set(run.journals()) == {"main", "run"}
    pid = shipper_of(base)
    assert pid is not None
    assert os.getsid(pid) == pid or os.getsid(pid) != os.getsid(0)
    environ = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"MANIFEST_RUN_DIR" not in environ
    assert b"manifest/bootstrap" not in environ


def test_it_delivers_what_is_there_and_leaves(
    service: Service, client: Client, record: Record, base: Path
) -> None:
    runs = [record() for _ in range(3)]
    Shipper(base, client, QUICK).work()
    assert all(is_delivered(run, service.url) for run in runs)


def test_a_run_that_has_not_begun_is_left_alone_until_it_has(
    service: Service, client: Client, record: Record, base: Path
) -> None:
    empty = RunDirectory.create(base, "0199c3f2-ffff-7000-8000-000000000000")
    run = record()
    at_work = Shipper(base, client, QUICK)
    assert at_work.work()
    assert not at_work.has_work()
    assert is_delivered(run, service.url)
    (run.path / "journal" / "run.jsonl").rename(empty.path / "journal" / "run.jsonl")
    assert at_work.has_work()
    assert at_work.work()
    assert not at_work.has_work()


def test_it_leaves_a_service_that_does_not_answer_after_a_while(record: Record, base: Path) -> None:
    run = record()

    def refused(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    http = httpx2.Client(transport=httpx2.MockTransport(refused))
    client = Client("http://service", http=http, pause=lambda _: None)
    assert not Shipper(base, client, QUICK).work()
    assert not acknowledged(run)


def test_it_leaves_when_its_folder_is_gone(record: Record, base: Path) -> None:
    record()

    def deleting(_: httpx2.Request) -> httpx2.Response:
        shutil.rmtree(base)
        raise httpx2.ConnectError("refused")

    http = httpx2.Client(transport=httpx2.MockTransport(deleting))
    client = Client("http://service", http=http, attempts=1)
    assert not Shipper(base, client).work()
    assert not base.exists()


def test_it_leaves_at_once_where_its_token_is_refused(record: Record, base: Path) -> None:
    record()
    record()
    asked: list[httpx2.Request] = []

    def refused(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(401, json={"code": "token-invalid", "detail": "revoked"})

    http = httpx2.Client(transport=httpx2.MockTransport(refused))
    shipper._work(Shipper(base, Client("http://service", http=http), QUICK))
    assert len(asked) == 1


def test_one_run_that_is_refused_does_not_keep_the_others(
    service: Service, client: Client, record: Record, base: Path
) -> None:
    bad, good = record(), record()
    (bad.path / "manifest.json").write_text("{}")
    Shipper(base, client, QUICK).work()
    assert is_delivered(good, service.url)
    assert not acknowledged(bad)


def unreadable(base: Path) -> RunDirectory:
    """A run directory that gives an error of the system, also to root."""
    run = RunDirectory(base / "runs" / "0199c3f2-ffff-7000-8000-000000000000")
    run.path.symlink_to(run.path)
    return run


def test_one_run_that_cannot_be_read_does_not_keep_the_others(
    service: Service,
    client: Client,
    record: Record,
    base: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    good, bad = record(), unreadable(base)
    at_work = Shipper(base, client, QUICK)
    assert at_work.work()
    assert not at_work.has_work()
    assert is_delivered(good, service.url)
    (said,) = [each.message for each in caplog.records if bad.id in each.message]
    assert "is not delivered" in said


def test_it_waits_for_a_service_beside_a_run_that_cannot_be_read(
    record: Record, base: Path
) -> None:
    record()
    unreadable(base)

    def refused(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    http = httpx2.Client(transport=httpx2.MockTransport(refused))
    assert not Shipper(base, Client("http://service", http=http, attempts=1), QUICK).work()


def test_a_run_that_goes_on_is_sent_once_its_disk_is_well_again(
    service: Service,
    client: Client,
    record: Record,
    base: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = record(is_over=False)
    sick = run.path / "trail" / "main.bin"
    sick.symlink_to(sick)
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(Shipper(base, client, QUICK).work)
        try:
            wait_until(lambda: sum("is not delivered" in each for each in caplog.messages) > 1)
        finally:
            sick.unlink()
            run.write_manifest()
        assert working.result(60)
    assert is_delivered(run, service.url)


def test_a_second_one_leaves_at_once(
    service: Service, record: Record, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = record()
    monkeypatch.setattr(os, "nice", lambda _: 0)
    with (base / LOCK).open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        shipper.main([str(base)])
    assert not acknowledged(run)


@pytest.fixture(autouse=True)
def _no_log_stays_open() -> Iterator[None]:
    yield
    for handler in list(shipper.log.handlers):
        shipper.log.removeHandler(handler)
        handler.close()


def test_a_full_disk_loses_nothing_and_deletes_nothing(
    service: Service, client: Client, record: Record, base: Path
) -> None:
    run = record()
    files = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    # A process that may write no byte more stands for a disk that takes none.
    program = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from manifest.rundir import RunDirectory\n"
        "from manifest_client.connection import Client\n"
        "from manifest_client.delivery import deliver\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "deliver(RunDirectory(Path(sys.argv[1])), Client(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", program, str(run.path), service.url]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "File too large" in ended.stderr
    assert files == {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    Shipper(base, client, QUICK).work()
    assert is_delivered(run, service.url)


def test_its_log_does_not_grow_without_end(base: Path) -> None:
    base.mkdir()
    shipper._log_into(base / LOG)
    for _ in range(3000):
        shipper.log.info("%s", "x" * 400)
    sizes = [path.stat().st_size for path in base.glob(f"{LOG}*")]
    assert len(sizes) == 2
    assert max(sizes) <= 256 * 1024
