"""Databases answer filters as the reference does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, event

from manifest.filtering import (
    All,
    Among,
    Comparison,
    Either,
    Field,
    Filter,
    Not,
    Present,
    is_match,
    parse_filter,
)
from manifest.models import Manifest, RunSummary
from manifest_migrations.upgrade import open_store
from manifest_server.database import sqlite_url
from manifest_server.sqlstore import SqlStore
from manifest_server.terms import searched_values, terms_of, values_of

MakeManifest = Callable[..., Manifest]

CONFIGS: list[dict[str, Any]] = [
    {},
    {"lr": 0.1, "name": "Base_1", "is_fast": True, "layers": [1, 2]},
    {"lr": 1, "name": "base%1", "is_fast": False, "layers": []},
    {"lr": 1.0, "name": "", "nested": {"deep": {"x": "1"}}, "layers": ["1", 2.5]},
    {"lr": "0.1", "name": "naïve 漢字🙂", "is_fast": 1, "long": "x" * 900},
    {"lr": {"$int": str(2**70)}, "name": "back\\slash", "empty": {}, "none": None},
    {"lr": -0.0, "name": "Z", "gone": {"$absent": True}, "nan": {"$float": "nan"}},
]
WORDS = ["", "a", "Base_1", "base", "%", "_", "1", "back\\", "Z", "漢字", "0.1", "nan"]
FIELDS = [
    Field("config", key)
    for key in ("lr", "name", "is_fast", "layers", "nested.deep.x", "long", "none", "nan", "gone")
]
SHARED_FIELDS = [Field("settings", "torch.num_threads"), Field("packages", "torch")]
ATTRIBUTES = [Field("", name) for name in ("project", "name", "status", "steps", "command", "id")]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def kept(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[SqlStore, list[Manifest]]]:
    """A store of each kind with runs that differ in all that filters look at."""
    if request.param == "sqlite":
        url = sqlite_url(tmp_path_factory.mktemp("search") / "store.db").render_as_string()
    else:
        url = request.getfixturevalue("module_postgresql_url")
    make: MakeManifest = request.getfixturevalue("module_make_manifest")
    manifests = [
        make(
            name=config.get("name") if index % 2 and isinstance(config.get("name"), str) else None,
            project=["digits", "Cats"][index % 2],
            status=["finished", "failed"][index % 3 == 0],
            sections={
                "config": config,
                "links": {"mlflow.run_id": ["one", f"two-{index}"], "mlflow.experiment_id": "7"},
                "settings": {"torch.num_threads": index % 3, "python.hash_probe": index},
                "packages": {"torch": f"2.{index % 2}.0"},
            },
        )
        for index, config in enumerate(CONFIGS * 2)
    ]
    with open_store(url) as store:
        store.put_runs([(manifest, None) for manifest in manifests[::2]])
        store.collect()  # what came before is kept in another form than what comes now
        store.put_runs([(manifest, None) for manifest in manifests[1::2]])
        yield store, manifests


def expected(store: SqlStore, manifests: list[Manifest], wanted: Filter) -> set[str]:
    summaries = {summary.id: summary for summary in store.list_runs(limit=1000)}

    def values(manifest: Manifest, field: Field) -> list[object]:
        if field.section:
            section = manifest.sections.get(field.section, {})
            return list(values_of(section, field.key))
        value = getattr(summaries[manifest.id], field.key)
        return [] if value is None else [value]

    return {
        manifest.id
        for manifest in manifests
        if is_match(wanted, lambda field, manifest=manifest: values(manifest, field))  # type: ignore[misc]
    }


def found(store: SqlStore, wanted: Filter) -> set[str]:
    return {summary.id for summary in store.list_runs(limit=1000, wanted=wanted)}


SCALARS = st.one_of(
    st.booleans(),
    st.sampled_from([0, 1, 2, 0.1, 1.0, 2.5, -1, 2**70, -(2**63), 1e300, 36]),
    st.sampled_from(WORDS),
)
ANY_FIELD = st.sampled_from([*FIELDS, *SHARED_FIELDS, *ATTRIBUTES])
CONDITIONS = st.one_of(
    st.builds(Comparison, ANY_FIELD, st.sampled_from(["=", "<", "<=", ">", ">="]), SCALARS),
    st.builds(Comparison, ANY_FIELD, st.sampled_from(["like", "~"]), st.sampled_from(WORDS)),
    st.builds(Among, ANY_FIELD, st.lists(SCALARS, min_size=1, max_size=3).map(tuple)),
    st.builds(Present, ANY_FIELD),
)
PAIRS = st.tuples(CONDITIONS, CONDITIONS)
FILTERS: st.SearchStrategy[Filter] = st.recursive(
    CONDITIONS,
    lambda parts: st.one_of(
        st.builds(Not, parts),
        st.builds(All, st.tuples(parts, parts)),
        st.builds(Either, st.tuples(parts, parts)),
    ),
    max_leaves=4,
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
@given(wanted=FILTERS)
def test_a_database_answers_as_the_reference_does(
    kept: tuple[SqlStore, list[Manifest]], wanted: Filter
) -> None:
    store, manifests = kept

    assert found(store, wanted) == expected(store, manifests, wanted)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('settings.torch.num_threads = 2 and packages.torch = "2.1.0"', 2),
        ("config.lr is null", 2),
        ("config.lr = 1", 4),
        (f"config.long = '{'x' * 900}'", 2),
        (f"config.long = '{'x' * 899}'", 0),
        (f"config.long ~ '{'x' * 150}'", 2),
        ('not packages.torch = "2.1.0"', 7),
        ('command ~ "TWO words"', 14),
        ('project = "cats"', 0),
        ("settings.python.hash_probe = 3", 0),
        ('links.mlflow.run_id = "two-5"', 1),
        ('links.mlflow.run_id = "one" and links.mlflow.experiment_id = "7"', 14),
    ],
)
def test_finds(kept: tuple[SqlStore, list[Manifest]], text: str, count: int) -> None:
    store, _ = kept

    assert len(found(store, parse_filter(text))) == count


def test_pages_through_what_is_found(kept: tuple[SqlStore, list[Manifest]]) -> None:
    store, _ = kept
    wanted = parse_filter('packages.torch = "2.1.0"')

    pages: list[RunSummary] = []
    while page := store.list_runs(limit=3, before=pages[-1].id if pages else None, wanted=wanted):
        pages += page

    assert [run.id for run in pages] == sorted(found(store, wanted), reverse=True)


def test_whether_names_have_an_index_is_asked_once(kept: tuple[SqlStore, list[Manifest]]) -> None:
    store, _ = kept
    wanted, sent = parse_filter('name ~ "ase"'), []

    def note(_: Connection, __: Any, statement: str, *___: Any) -> None:
        sent.append(statement)

    first = store.list_runs(wanted=wanted)
    event.listen(store._engine, "before_cursor_execute", note)
    again = store.list_runs(wanted=wanted)
    event.remove(store._engine, "before_cursor_execute", note)

    assert again == first != []
    assert sent
    assert [
        statement for statement in sent if "PRAGMA" in statement or "_master" in statement
    ] == []


@pytest.mark.parametrize("count", [10, 6000])
def test_what_is_searched_under_a_key_is_what_there_are_terms_of(count: int) -> None:
    section = {"lr": [0.5, 2], **{f"key-{number}": number for number in range(count)}, "last": 7}
    kept = {term.key for term in terms_of("config", section)}

    for key in ("lr", "key-9", "last", "nothing"):
        assert searched_values("config", section, key) == (
            values_of(section, key) if key in kept else []
        )
    assert searched_values("seeds", {"draws": {"torch": 1}, "hash_seed": "7"}, "draws.torch") == []


@pytest.mark.parametrize("together", [True, False])
def test_sections_that_are_equal_are_found_under_each_name(
    store: SqlStore, make_manifest: MakeManifest, together: bool
) -> None:
    equal = {"kind": "same"}
    first = make_manifest(sections={"packages": equal, "hardware": equal})
    second = make_manifest(sections={"inputs": equal})
    if together:
        store.put_runs([(first, None), (second, None)])
    else:
        store.put_run(first)
        store.put_run(second)
    for section, run in (("packages", first), ("hardware", first), ("inputs", second)):
        assert found(store, parse_filter(f"{section}.kind = 'same'")) == {run.id}
        (value,) = store.count_values(Field(section, "kind"), limit=9)
        assert (value.value, value.runs) == ("same", 1)
