"""How databases go about what pages ask: by an index, whatever the number of runs.

The statements are those that the store has really sent. PostgreSQL is told to avoid reading whole
tables and sorting, as it prefers that for a few thousand rows: where it still does, no index would
serve.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, event

from manifest.filtering import parse_field, parse_filter
from manifest.models import Manifest
from manifest_server.sqlstore import SqlStore

Crowd = tuple[SqlStore, list[Manifest]]
LARGE = ("runs", "names", "terms", "run_terms", "section_terms", "sections")


def listed(text: str | None = None, **more: Any) -> Callable[[SqlStore], object]:
    return lambda store: store.list_runs(wanted=parse_filter(text) if text else None, **more)


ONE = "01990000-0000-7000-8000-000000000003"
PAGES = {
    "newest page": listed(),
    "a later page": listed(before=ONE),
    "page of a project": listed(project="project 3"),
    "page of a project and a status": listed(project="project 0", status="failed"),
    "replays of a run": lambda store: store.list_replays(ONE),
}
ASKED = {
    **PAGES,
    "one run": lambda store: store.get_run(ONE),
    "one setting": listed("settings.threads = 3"),
    "one setting in a project": listed("settings.threads = 3", project="project 3"),
    "a setting of old runs": listed("settings.is_old = true"),
    "a setting of few": listed('code.git.commit = "77"'),
    "two settings": listed('settings.threads = 3 and packages.torch = "2.1"'),
    "a narrow range": listed("config.lr > 0.25 and config.lr < 0.26"),
    "a wide range": listed("config.lr > 0.25 and config.lr < 0.95", project="project 3"),
    "a status in a project": listed('status = "failed" and config.batch = 3', project="project 0"),
    "a value of config": listed("config.batch = 3"),
    "a value of a project": listed('project = "project 3" and config.batch = 3'),
    "a later page of a value": listed("config.batch = 3", before=ONE),
    "two values": listed("config.batch = 3 and config.lr < 0.9", project="project 3"),
    "a value of few": listed('config.batch = 3 and code.git.commit = "77"'),
    "a part of a name": listed('name ~ "ber 77"'),
    "a part of no name": listed('name ~ "nowhere"'),
    "fields": lambda store: store.list_fields("config."),
    "facet of a project": lambda store: store.count_values(
        parse_field("settings.threads"), project="project 3"
    ),
    "facet of a project: config": lambda store: store.count_values(
        parse_field("config.lr"), project="project 3"
    ),
    "facet of the newest": lambda store: store.count_values(
        parse_field("status"), newest=100, wanted=parse_filter("settings.threads = 3")
    ),
    "digests": lambda store: store.digests([ONE]),
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_no_table_that_grows_with_the_runs_is_read_whole(
    crowded: Crowd, ask: Callable[[SqlStore], object]
) -> None:
    steps = plans(crowded[0], ask)

    assert steps
    assert [step for step in steps if is_whole_table(step)] == []


@pytest.mark.parametrize("ask", PAGES.values(), ids=PAGES)
def test_a_page_comes_in_the_order_of_its_index(
    crowded: Crowd, ask: Callable[[SqlStore], object]
) -> None:
    assert [step for step in plans(crowded[0], ask) if is_sorting(step)] == []


@pytest.mark.parametrize("page", ["page of a project", "page of a project and a status"])
def test_a_page_of_a_project_passes_over_no_other_runs(crowded: Crowd, page: str) -> None:
    steps = plans(crowded[0], PAGES[page])

    if crowded[0].backend == "sqlite":
        assert all("(project=?" in step for step in steps)
    else:
        assert "(project = " in json.loads(steps[-1])["Index Cond"]


def test_runs_of_a_setup_are_counted_by_their_index_alone(crowded: Crowd) -> None:
    steps = plans(crowded[0], ASKED["facet of a project"])

    # PostgreSQL looks at runs as well until it has vacuumed them.
    if crowded[0].backend == "sqlite":
        assert any("runs USING COVERING INDEX ix_runs_setup_key" in step for step in steps)


def test_a_range_in_a_project_passes_over_no_other_numbers(crowded: Crowd) -> None:
    steps = plans(crowded[0], ASKED["a wide range"])

    (found,) = [step for step in steps if "ix_terms_section_key_project_number_id" in step]
    if crowded[0].backend == "sqlite":
        assert "COVERING INDEX" in found
        assert "project=? AND number>? AND number<?" in found
    else:
        condition = json.loads(found)["Index Cond"]
        assert all(part in condition for part in ("(project = ", "(number > ", "(number < "))


def test_values_of_a_project_are_counted_without_a_look_at_terms(crowded: Crowd) -> None:
    steps = plans(crowded[0], ASKED["facet of a project: config"])

    # PostgreSQL looks at them until it has vacuumed them.
    if crowded[0].backend == "sqlite":
        (found,) = [step for step in steps if step.startswith("SEARCH terms")]
        assert "COVERING INDEX" in found
    else:
        assert any('"Index Only Scan"' in step and '"terms"' in step for step in steps)


@pytest.mark.parametrize("prefix", ["", "con", "config.", "settings.t"])
def test_fields_are_met_without_the_values_between_them(crowded: Crowd, prefix: str) -> None:
    steps = plans(crowded[0], lambda store: store.list_fields(prefix))

    if crowded[0].backend == "sqlite":
        assert any(step.endswith("(section=? AND key>? AND key<?)") for step in steps)
    else:
        assert any('"Recursive Union"' in step for step in steps)
        assert not any('"Unique"' in step or '"Aggregate"' in step for step in steps)


@pytest.mark.parametrize("project", [None, "project 3"])
def test_runs_are_counted_setup_by_setup(crowded: Crowd, project: str | None) -> None:
    store, _ = crowded
    counted = parse_field("settings.threads")
    steps = plans(store, lambda store: store.count_values(counted, project=project))

    if store.backend == "sqlite":
        (found,) = [step for step in steps if "ix_runs_setup_key" in step]
        assert found == "SEARCH runs USING COVERING INDEX ix_runs_setup_key (setup_key=?)"
    elif project is not None:
        (found,) = [step for step in steps if "ix_runs_setup_key" in step]
        assert "(setup_key = " in json.loads(found)["Index Cond"]


@pytest.mark.parametrize("newest", [None, 100])
def test_runs_of_all_setups_are_counted_once(crowded: Crowd, newest: int | None) -> None:
    store, _ = crowded
    counted = parse_field("settings.threads")
    steps = plans(store, lambda store: store.count_values(counted, newest=newest))

    # PostgreSQL would count them again for each setup that it has not expected to find.
    if store.backend == "postgresql":
        (found,) = [step for step in steps if '"Subplan Name": "CTE by_setup"' in step]
        assert '"Partial Mode": "Simple"' in found or '"Partial Mode": "Finalize"' in found


def test_what_would_be_slow_is_noticed(crowded: Crowd) -> None:
    steps = plans(crowded[0], lambda store: store.count_values(parse_field("command")))

    assert any(is_whole_table(step) for step in steps)
    assert any(is_sorting(step) for step in steps)


def plans(store: SqlStore, ask: Callable[[SqlStore], object]) -> list[str]:
    """The steps of every statement that is sent, as the database describes them."""
    sent: list[tuple[str, Any]] = []

    def note(_: Connection, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        sent.append((statement, parameters))

    event.listen(store._engine, "before_cursor_execute", note)
    ask(store)
    event.remove(store._engine, "before_cursor_execute", note)
    with store._engine.connect() as connection:
        if store.backend == "sqlite":
            return [
                row.detail
                for statement, parameters in sent
                for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            ]
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        connection.exec_driver_sql("SET LOCAL enable_sort = off")
        explained = [
            connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
            for statement, parameters in sent
        ]
        return [step for plan in explained for step in steps_in(plan.scalar_one()[0]["Plan"])]


def steps_in(plan: dict[str, Any]) -> list[str]:
    """PostgreSQL's tree of steps, each as a line."""
    step = json.dumps({key: value for key, value in plan.items() if key != "Plans"})
    return [step, *(each for below in plan.get("Plans", ()) for each in steps_in(below))]


def is_whole_table(step: str) -> bool:
    """Whether a step reads all of a large table, in no order."""
    if step.startswith("{"):
        found = json.loads(step)
        return found["Node Type"] == "Seq Scan" and found["Relation Name"] in LARGE
    words = step.split()
    return words[0] == "SCAN" and words[1] in LARGE and "INDEX" not in words


def is_sorting(step: str) -> bool:
    """Whether a step puts rows in order that did not come so."""
    if step.startswith("{"):
        return "Sort" in json.loads(step)["Node Type"]
    return step.startswith("USE TEMP B-TREE FOR ORDER BY")
