"""What reads take among a million runs: `python benchmarks/million.py`.

A SQLite file and a PostgreSQL database are filled side by side, much faster than by putting runs:
what they share is packed once, and rows go in by the thousand. On a sample it is checked that these
are the rows that the store writes. Then the store's own methods are timed, with other parameters
every time, as people and pages would ask; all of one kind in turn, after a few that do not count.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Engine, Table, select

from manifest.diffing import diff
from manifest.filtering import TAGS, parse_field, parse_filter
from manifest.models import Annotations
from manifest_migrations.upgrade import open_store
from manifest_server.database import open_engine, transaction
from manifest_server.holders import MOST_TOGETHER, pairs
from manifest_server.packing import PackedRun, compressed, pack_verdict
from manifest_server.sqlstore import SqlStore
from manifest_server.tables import (
    fresh_terms,
    metadata,
    names,
    projects,
    run_annotations,
    run_terms,
    runs,
    section_terms,
    sections,
    setups,
    terms,
)
from manifest_server.terms import own_terms, terms_of
from population import (
    ENVIRONMENTS,
    PROJECTS,
    WORDS,
    Made,
    manifest_of,
    moment,
    packed_of,
    population,
    shared_of,
    verdict_of,
)
from storing import postgresql

_AT_ONCE: Final = 20_000
_BY_CHANCE: Final = frozenset((run_annotations.c.updated_at, names.c.number))
_SAMPLE: Final = 400
_SAID_AT: Final = moment(1_800_000_000)


def main() -> None:
    """Fill both databases, and print what reads take."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=30, help="of each question")
    parser.add_argument("--url", action="append", help="databases filled by a call before")
    options = parser.parse_args()
    if options.url:
        for url in options.url:
            measure(url, options.runs, options.rounds)
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="manifest-million-")))
        server = stack.enter_context(postgresql(folder))
        urls = [f"sqlite:///{folder}/store.db", *([server] if server else [])]
        check_rows(folder)
        with ProcessPoolExecutor() as pool:
            for said in pool.map(fill, urls, [options.runs] * len(urls)):
                print(said, flush=True)
        for url in urls:
            measure(url, options.runs, options.rounds)


def fill(url: str, count: int) -> str:
    """Write the population; gives what it took."""
    open_store(url).close()
    gc.disable()  # nothing here refers to itself, and there is much of it
    began = time.perf_counter()
    engine = open_engine(url)
    rows = Rows()
    made = population(count)
    while portion := list(islice(made, _AT_ONCE)):
        for each in portion:
            rows.put(each)
        with transaction(engine, is_writing=True) as connection:
            rows.write(connection)
    with transaction(engine, is_writing=True) as connection:
        rows.write(connection, is_end=True)
    filled = time.perf_counter()
    settle(engine)
    engine.dispose()
    said = f"{engine.dialect.name}: {count:,} runs in {filled - began:.0f} s"
    return f"{said}, settled in {time.perf_counter() - filled:.0f} s"


def settle(engine: Engine) -> None:
    """Do what a server does by itself while it is used."""
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")


class Gathered:
    """Runs by term, as rows of `run_terms`: as many in each as the store puts together."""

    def __init__(self) -> None:
        self._runs: dict[int, list[str]] = {}

    def put(self, number: int, run_id: str) -> Iterator[tuple[object, ...]]:
        """Say that a run has a term, after all that are older; gives a row that is full."""
        found = self._runs.setdefault(number, [])
        found.append(run_id)
        if len(found) == MOST_TOGETHER:
            yield self._row(number)

    def rest(self) -> list[tuple[object, ...]]:
        """The rows that are not full."""
        return [self._row(number) for number in list(self._runs)]

    def _row(self, number: int) -> tuple[object, ...]:
        *older, newest = self._runs.pop(number)
        return number, newest, older or None


class Rows:
    """The rows of runs, by table; those that many runs share only where they are new."""

    def __init__(self) -> None:
        self._seen: set[object] = set()
        self._gathered = Gathered()
        self._found: dict[Table, list[tuple[object, ...]]] = defaultdict(list)

    def put(self, made: Made) -> None:
        """Add the rows of a run."""
        packed, verdict = packed_of(made), verdict_of(made)
        run_id = str(packed.row["id"])
        self._put_shared(packed)
        row = {**packed.row, "outcome": None, "verdict": None}
        if verdict is not None:
            row |= {"outcome": verdict.outcome, "verdict": pack_verdict(verdict)}
        self._found[runs].append(tuple(row[column.name] for column in runs.c))
        own = packed.terms + list(own_terms(made.document["project"], TAGS, made.tags))
        self._put_terms(own)
        for term in own:
            self._found[run_terms].extend(self._gathered.put(term.id, run_id))
        if made.tags:
            tags = json.dumps(made.tags, sort_keys=True)
            self._found[run_annotations].append((run_id, 1, tags, "", _SAID_AT, None))

    def write(self, connection: Connection, *, is_end: bool = False) -> None:
        """Insert what was added since."""
        if is_end:
            self._found[run_terms].extend(self._gathered.rest())
        for table, rows in self._found.items():
            insert_all(connection, table, rows)
        self._found.clear()

    def _put_shared(self, packed: PackedRun) -> None:
        project, name = packed.row["project"], packed.row["name"]
        if self._is_new("project", project):
            self._found[projects].append((project,))
        if name is not None and self._is_new("name", name):
            self._found[names].append((len(self._seen), name))
        if packed.setup and self._is_new("setup", packed.setup["key"]):
            self._found[setups].append(tuple(packed.setup[column.name] for column in setups.c))
        for key, section in packed.sections.items():
            if self._is_new("section", key):
                self._found[sections].append((key, compressed(section.body)))
                new = list(terms_of(section.name, section.values()))
                self._put_terms(new)
                self._found[section_terms].extend((term.id, key) for term in new)

    def _put_terms(self, new: Iterable[Any]) -> None:
        self._found[terms].extend(
            tuple(getattr(term, column.key) for column in terms.c)
            for term in new
            if self._is_new(term.id)
        )

    def _is_new(self, *key: object) -> bool:
        is_known = key in self._seen
        self._seen.add(key)
        return not is_known


def insert_all(connection: Connection, table: Table, rows: list[tuple[object, ...]]) -> None:
    """Insert rows in the driver's own fastest way."""
    dialect, driver = connection.dialect, connection.connection.driver_connection
    assert driver is not None
    types = [column.type for column in table.c]
    binding = [each.dialect_impl(dialect).bind_processor(dialect) for each in types]
    bound = [
        tuple(
            value if bind is None else bind(value) for bind, value in zip(binding, row, strict=True)
        )
        for row in sorted(rows, key=lambda row: row[: len(table.primary_key)])
    ]
    columns = ", ".join(column.name for column in table.c)
    if dialect.name == "sqlite":
        marks = ", ".join("?" * len(types))
        driver.executemany(f"INSERT INTO {table.name} ({columns}) VALUES ({marks})", bound)
        return
    with (
        driver.cursor() as cursor,
        cursor.copy(f"COPY {table.name} ({columns}) FROM STDIN (FORMAT BINARY)") as copy,
    ):
        copy.set_types([each.compile(dialect).lower() for each in types])
        for row in bound:
            copy.write_row(row)


def check_rows(folder: Path) -> None:
    """Make sure that what is written is what the store writes."""
    urls = [f"sqlite:///{folder}/{name}.db" for name in ("put", "filled")]
    made = list(population(_SAMPLE))
    with open_store(urls[0]) as store:
        store.put_runs([(manifest_of(each), verdict_of(each)) for each in made])
        for each in made:
            if each.tags:
                store.put_annotations(each.document["id"], Annotations(tags=each.tags))
    fill(urls[1], _SAMPLE)
    first, second = map(open_engine, urls)
    for table in metadata.sorted_tables:
        columns = [column for column in table.c if column not in _BY_CHANCE]
        statement = select(*columns).order_by(*columns)
        with transaction(first) as one, transaction(second) as other:
            if table is fresh_terms:
                continue
            if table is run_terms:  # which of them the store has put together yet is chance
                statement = pairs(one).order_by("term", "run_id")
            assert one.execute(statement).all() == other.execute(statement).all(), table.name
    first.dispose()
    second.dispose()


class Question(NamedTuple):
    """What is asked of a store, and how soon an answer is wanted."""

    what: str
    goal_ms: int
    prepare: Callable[[random.Random], Callable[[], object]]


def measure(url: str, count: int, rounds: int) -> None:
    """Ask everything, and print how long answers took."""
    with SqlStore.open(url) as store:
        print(f"\n{store.backend}, {bytes_of(url) / count:,.0f} bytes a run")
        print(f"  {'':<46}{'p50 ms':>9}{'p95 ms':>9}{'max ms':>9}{'goal':>7}")
        for question in questions(store):
            known = random.Random(question.what)
            waits = []
            for _ in range(rounds // 10 + rounds):
                ask = question.prepare(known)
                began = time.perf_counter()
                ask()
                waits.append((time.perf_counter() - began) * 1e3)
            waits = sorted(waits[rounds // 10 :])
            p50, p95 = statistics.median(waits), waits[len(waits) * 95 // 100]
            missed = "  missed" if p50 > question.goal_ms else ""
            print(
                f"  {question.what:<46}{p50:>9.2f}{p95:>9.2f}{waits[-1]:>9.1f}"
                f"{question.goal_ms:>7}{missed}",
                flush=True,
            )


def questions(store: SqlStore) -> list[Question]:  # noqa: C901 - one line for each
    """What people and pages ask."""
    some = [run.id for run in store.list_runs(limit=2000)]
    for _ in range(9):
        some += [run.id for run in store.list_runs(limit=2000, before=some[-1])]

    def project(known: random.Random) -> str:
        return f"project-{known.randrange(PROJECTS):02}"

    def shared(known: random.Random, *names: str) -> str:
        values = shared_of(known.randrange(ENVIRONMENTS), 0).values
        parts = []
        for name in names:
            key = known.choice(
                [key for key in values[name] if not isinstance(values[name][key], dict)]
            )
            value = values[name][key]
            text = str(value).lower() if isinstance(value, (bool, int)) else f'"{value}"'
            parts.append(f"{name}.{key} = {text}")
        return " and ".join(parts)

    def between(known: random.Random, width: float) -> str:
        low = 10 ** known.uniform(-5, -1.5)
        return f"config.lr > {low:.8f} and config.lr < {low * width:.8f}"

    def listed(text: str | None = None, **more: Any) -> Callable[[], object]:
        return lambda: store.list_runs(wanted=parse_filter(text) if text else None, **more)

    def counted(field: str, **more: Any) -> Callable[[], object]:
        return lambda: store.count_values(parse_field(field), **more)

    def two(known: random.Random) -> str:
        return shared(known, "settings", "packages")

    def alike(known: random.Random) -> Callable[[], object]:
        page = store.list_runs(project=project(known), before=known.choice(some))
        first, second = (known.choice(page).id for _ in range(2))
        return lambda: diff(*store.get_runs([first, second]))

    def one(known: random.Random) -> Callable[[], object]:
        run_id = known.choice(some)
        return lambda: store.get_run(run_id)

    def replays(known: random.Random) -> Callable[[], object]:
        run_id = known.choice(some)
        return lambda: store.list_replays(run_id)

    def fields(known: random.Random) -> Callable[[], object]:
        prefix = known.choice(("", "c", "config.", "config.o", "settings.li", "packages.pack"))
        return lambda: store.list_fields(prefix)

    def seed(known: random.Random) -> str:
        return f"config.seed = {known.randrange(10_000)}"

    def setting(known: random.Random) -> str:
        return shared(known, "settings")

    def word(known: random.Random) -> str:
        return f"{known.choice(WORDS)}-{known.choice(WORDS)}-{known.randrange(100)}"

    def facet(field: str) -> Callable[[random.Random], Callable[[], object]]:
        return lambda known: counted(field, project=project(known))

    return [
        Question("newest page", 10, lambda _: listed()),
        Question("a page from anywhere", 10, lambda k: listed(before=k.choice(some))),
        Question("page of a project", 10, lambda k: listed(project=project(k))),
        Question(
            "page of a project and a status",
            10,
            lambda k: listed(project=project(k), status=k.choice(("failed", "crashed"))),
        ),
        Question("one setting", 10, lambda k: listed(setting(k))),
        Question("one setting that no run has", 10, lambda _: listed("settings.library = 1")),
        Question("one setting in a project", 10, lambda k: listed(setting(k), project=project(k))),
        Question(
            "one commit", 10, lambda k: listed(f'code.git.commit = "{k.randrange(3000):040x}"')
        ),
        Question("two settings of two sections", 10, lambda k: listed(two(k))),
        Question("the same in a project", 10, lambda k: listed(two(k), project=project(k))),
        Question("a wide range of config.lr", 10, lambda k: listed(between(k, 10))),
        Question("a narrow range", 10, lambda k: listed(between(k, 1.01))),
        Question("a range that few fit", 10, lambda k: listed(between(k, 1.2))),
        Question("a range in a project", 10, lambda k: listed(between(k, 3), project=project(k))),
        Question("config.batch_size > 100", 10, lambda _: listed("config.batch_size > 100")),
        Question("config.seed", 10, lambda k: listed(seed(k))),
        Question("config.seed and a setting", 10, lambda k: listed(f"{seed(k)} and {setting(k)}")),
        Question("config.optimizer", 10, lambda _: listed('config.optimizer = "adamw"')),
        Question("a tag", 10, lambda k: listed(f'tags.team = "{k.choice(WORDS)}"')),
        Question("one run", 10, one),
        Question("diff of two runs of a project", 10, alike),
        Question("replays of a run", 10, replays),
        Question("facet of a project: status", 20, facet("status")),
        Question("facet of a project: a setting", 20, facet("settings.library.of.settings_3")),
        Question("facet of a project: a package", 20, facet("packages.package-of-some-name-9")),
        Question("facet of a project: config.optimizer", 20, facet("config.optimizer")),
        Question("facet of a project: config.lr", 20, facet("config.lr")),
        Question(
            "facet of all: a setting", 20, lambda _: counted("settings.library.of.settings_3")
        ),
        Question("fields", 10, fields),
        Question("text in names", 50, lambda k: listed(f'name ~ "{k.choice(WORDS)}"')),
        Question("text in names that few have", 50, lambda k: listed(f'name ~ "{word(k)}"')),
        Question("text in names that no run has", 50, lambda _: listed('name ~ "nowhere"')),
        Question(
            "text in names of a project",
            50,
            lambda k: listed(f'name ~ "{word(k)}"', project=project(k)),
        ),
        Question(
            "text in a package's version",
            50,
            lambda _: listed('packages.package-of-some-name-3 ~ "1.3"'),
        ),
        Question("projects", 10, lambda _: store.list_projects),
    ]


def bytes_of(url: str) -> int:
    """What the database takes, with its indexes."""
    engine = open_engine(url)
    asked = (
        "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        if engine.dialect.name == "sqlite"
        else "SELECT pg_database_size(current_database())"
    )
    with transaction(engine) as connection:
        size: int = connection.exec_driver_sql(asked).scalar_one()
    engine.dispose()
    return size


if __name__ == "__main__":
    main()
