"""What the pages of the service take among many runs: `python benchmarks/pages.py --help`.

A SQLite file and a PostgreSQL database are filled side by side with the runs of `population.py`.
Each is served by `manifest server` in a process of its own, and asked for one page after the other,
with other runs and values every time. How long an answer took is what the log of the server says of
it. Then a browser opens the pages, and says what came over the wire and whether anything moved.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import cycle, permutations
from pathlib import Path
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urlencode, urlsplit

from manifest.filtering import parse_filter
from manifest.segments import SEGMENT_STEPS
from manifest.streams import ROW_SIZE
from manifest.trail import TrailWriter
from manifest_migrations.upgrade import open_store
from manifest_server.sqlstore import SqlStore
from million import check_rows, fill
from population import PROJECTS
from storing import cpu_seconds, postgresql

COLUMNS: Final = (
    *("config.lr", "config.optimizer", "settings.library.of.settings_3"),
    *("packages.package-of-some-name-9", "hardware.gpu.0.name"),
)
MANY: Final = 50
STEPS: Final = 1_000_000
_TRAILS: Final = 8
_PORTION: Final = 60 * SEGMENT_STEPS  # what a request may bring
_FINISHED: Final = 'status = "finished" and replay_of is null'
_COLD_BYTES: Final = 100_000
_WARM_BYTES: Final = 15_000
_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
_WIDTHS: Final = (360, 1280, 3840)

Address = Callable[[random.Random], str]


class Page(NamedTuple):
    """A page, and how soon it is wanted at the 95th percentile."""

    what: str
    goal_ms: int
    address: Address


class Seen(NamedTuple):
    """What a browser says of a page."""

    cold: int
    """Bytes over the wire at the first visit, with style and scripts."""
    warm: int
    shift: float
    """How far things moved while it loaded, as browsers count it."""


def main() -> None:
    """Fill both databases, serve them, and print what pages take."""
    parser = argparse.ArgumentParser(description=__doc__, prog="pages")
    parser.add_argument("--runs", type=int, default=100_000, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=40, help="of each page; default: %(default)s")
    parser.add_argument("--url", action="append", help="databases filled by a call before")
    options = parser.parse_args()
    with ExitStack() as stack:
        urls = options.url
        if not urls:
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix="manifest-pages-"))
            server = stack.enter_context(postgresql(Path(name)))
            urls = [f"sqlite:///{name}/store.db", *([server] if server else [])]
            check_rows(Path(name))
            with ProcessPoolExecutor() as pool:
                for said in pool.map(fill, urls, [options.runs] * len(urls)):
                    print(said, flush=True)
        for url in urls:
            measure(url, options.rounds)


def measure(url: str, rounds: int) -> None:
    """Ask for every page, and print how long answers took."""
    with open_store(url) as store:
        backend, asked = store.backend, [*pages(store), divergence(store)]
    load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    print(f"\n{backend}; {os.cpu_count()} cores, load {load}")
    print(f"  {'':<44}{'p50 ms':>9}{'p95 ms':>9}{'goal':>7}{'CPU ms':>9}{'KB':>8}")
    with tempfile.TemporaryDirectory(prefix="manifest-pages-") as folder, Server(url, folder) as it:
        for page in asked:
            show(page, it, rounds)
        for line in in_a_browser(it.address, [asked[0], *asked[-2:]]):
            print(line, flush=True)


def show(page: Page, server: Server, rounds: int) -> None:
    """Ask for a page with other words every time; the first tenth does not count."""
    known = random.Random(page.what)
    for _ in range(max(1, rounds // 10)):
        server.ask(page.address(known))
    asked = [page.address(known) for _ in range(rounds)]
    before = cpu_seconds(server.pid)
    kept = [server.ask(path) for path in asked]
    cpu = (cpu_seconds(server.pid) - before) * 1e3 / rounds
    waits = sorted(ms for ms, _ in kept)
    p50, p95 = statistics.median(waits), waits[len(waits) * 95 // 100]
    size = statistics.median(size for _, size in kept) / 1000
    missed = "  missed" if p95 > page.goal_ms else ""
    print(
        f"  {page.what:<44}{p50:>9.1f}{p95:>9.1f}{page.goal_ms:>7}{cpu:>9.1f}{size:>8.1f}{missed}",
        flush=True,
    )


def pages(store: SqlStore) -> list[Page]:
    """What people open."""
    some = [run.id for run in store.list_runs(limit=2000)]
    columns = ",".join(COLUMNS)

    def listed(**parameters: str) -> str:
        return f"/?{urlencode(parameters)}"

    def filtered(known: random.Random) -> str:
        project = f"project-{known.randrange(PROJECTS):02}"
        value = known.choice(("config.batch_size = 64", 'config.optimizer = "adam"'))
        return listed(filter=f'project = "{project}" and {value}')

    def compared(count: int) -> Address:
        def address(known: random.Random) -> str:
            before = known.choice(some)
            page = store.list_runs(limit=200, before=before)
            return f"/compare?ids={','.join(run.id for run in known.sample(page, count))}"

        return address

    def alike(known: random.Random) -> str:
        project = f"project-{known.randrange(PROJECTS):02}"
        page = store.list_runs(limit=50, project=project)
        return f"/compare?ids={','.join(run.id for run in known.sample(page, 2))}"

    return [
        Page("runs: the first page", 100, lambda _: "/"),
        Page("runs: a page further down", 100, lambda k: listed(before=k.choice(some))),
        Page("runs: of a project, with a value", 100, filtered),
        Page("runs: with five more columns", 100, lambda _: listed(columns=columns)),
        Page("one run", 100, lambda k: f"/runs/{k.choice(some)}"),
        Page("projects", 100, lambda _: "/projects"),
        Page("compare two of a project", 100, alike),
        Page("compare two of any", 100, compared(2)),
        Page(f"compare {MANY}", 1000, compared(MANY)),
    ]


def divergence(store: SqlStore) -> Page:
    """Where two runs of a million steps part; no run has a trail before this."""
    found = store.list_runs(limit=_TRAILS, wanted=parse_filter(_FINISHED))
    for place, run in enumerate(found):
        if not store.trails.list(run.id):
            put_trail(store, run.id, parting=STEPS - place * 12_345)
    # No pair comes twice: what was compared is remembered.
    pairs = cycle(permutations([run.id for run in found], 2))

    def address(_: random.Random) -> str:
        a, b = next(pairs)
        return f"/divergence?a={a}&b={b}"

    return Page("where two runs of a million steps part", 1000, address)


def put_trail(store: SqlStore, run_id: str, *, parting: int) -> None:
    """Put rows that are those of every trail up to a step, and of no other from there on."""
    known, own = random.Random(0), random.Random(run_id)
    for start in range(0, STEPS, _PORTION):
        count = min(_PORTION, STEPS - start)
        rows, kept = known.randbytes(ROW_SIZE * count), max(0, min(count, parting - start))
        rows = rows[: kept * ROW_SIZE] + own.randbytes(ROW_SIZE * (count - kept))
        header = b"" if start else header_of_trails()
        store.trails.put_rows(run_id, "main", header + rows, start=start)


def header_of_trails() -> bytes:
    """The first line of every trail, as this version writes it."""
    with tempfile.TemporaryDirectory() as folder:
        writer = TrailWriter(Path(folder, "main.bin"))
        writer.close()
        return Path(writer.path).read_bytes()


class Server:
    """`manifest server` in a process of its own, asked over one connection."""

    def __init__(self, database: str, folder: str) -> None:
        self._log = Path(folder, "log")
        self._environ = {
            **{name: text for name, text in os.environ.items() if not name.startswith("MANIFEST_")},
            "MANIFEST_SERVER_DATABASE_URL": database,
            "MANIFEST_SERVER_PORT": "0",
            "HOME": folder,
        }

    def __enter__(self) -> Self:
        command = [str(Path(sysconfig.get_path("scripts"), "manifest")), "server"]
        self._errors = self._log.open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            command,
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=self._log.parent,
        )
        assert self._process.stdout is not None
        self.address = next(line for line in self._process.stdout if "http://" in line).split()[-1]
        self._connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=60)
        return self

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def ask(self, path: str) -> tuple[float, int]:
        """Open a page; gives the milliseconds that the server says, and the bytes of its body."""
        headers = {"Accept": "text/html", "Accept-Encoding": "gzip"}
        self._connection.request("GET", path, headers=headers)
        answer = self._connection.getresponse()
        size = len(answer.read())
        assert answer.status == 200, (path, answer.status)
        return self._milliseconds(answer.headers["X-Request-ID"]), size

    def _milliseconds(self, request_id: str) -> float:
        """What the log says of a request; the line may come a little after the answer."""
        while True:
            for line in self._log.read_text(encoding="utf-8").splitlines()[-3:]:
                said = json.loads(line) if line.endswith("}") else {}
                if said.get("request_id") == request_id:
                    return float(said["ms"])

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()
        self._errors.close()


def in_a_browser(address: str, asked: list[Page]) -> Iterator[str]:
    """What came over the wire, and what moved; a line for each page."""
    with browser() as opened:
        if opened is None:
            yield "  no browser is installed: nothing was measured in one"
            return
        yield f"\n  {'in a browser':<44}{'cold KB':>9}{'warm KB':>9}{'shift':>9}"
        for page in asked:
            seen = look(opened, address + page.address(random.Random(0)))
            missed = "  missed" if seen.shift > 0 else ""
            if page is asked[0] and (seen.cold > _COLD_BYTES or seen.warm > _WARM_BYTES):
                missed = "  missed"
            yield (
                f"  {page.what:<44}{seen.cold / 1e3:>9.1f}{seen.warm / 1e3:>9.1f}"
                f"{seen.shift:>9.4f}{missed}"
            )


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium, if there is one."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        yield None
        return
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        try:
            opened = playwright.chromium.launch(executable_path=found, args=arguments)
        except Error:
            yield None
            return
        yield opened
        opened.close()


def look(opened: Any, address: str) -> Seen:
    """Visit a page twice at each width; what moved is that of the worst visit."""
    sizes: list[int] = []
    shifts: list[float] = []
    for width in _WIDTHS:
        context = opened.new_context(viewport={"width": width, "height": 900})
        context.add_init_script(_WATCH_SHIFTS)
        page = context.new_page()
        session = context.new_cdp_session(page)
        session.send("Network.enable")
        session.on("Network.loadingFinished", lambda told: sizes.append(told["encodedDataLength"]))
        totals = []
        for _ in range(2):
            sizes.clear()
            page.goto(address, wait_until="networkidle")
            totals.append(sum(sizes))
            shifts.append(page.evaluate("window.shifted"))
        context.close()
    cold, warm = totals
    return Seen(cold, warm, max(shifts))


_WATCH_SHIFTS: Final = """
window.shifted = 0;
new PerformanceObserver((list) => {
  for (const each of list.getEntries()) if (!each.hadRecentInput) window.shifted += each.value;
}).observe({ type: "layout-shift", buffered: true });
"""


if __name__ == "__main__":
    main()
