"""Filters mean what they say, and what cannot be read is shown with its place."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifest.errors import FilterInvalid
from manifest.filtering import (
    LONGEST,
    All,
    Among,
    Comparison,
    Either,
    Field,
    Filter,
    Not,
    Present,
    expected_next,
    is_match,
    parse_field,
    parse_filter,
    written,
)

STATUS = Field("", "status")
RUN: dict[Field, list[object]] = {
    STATUS: ["failed"],
    Field("", "steps"): [120],
    Field("config", "lr"): [0.1],
    Field("config", "layers"): [2, 3],
    Field("config", "is_fast"): [True],
    Field("settings", "torch.version"): ["2.13.0+cpu"],
    Field("environment", "env.OMP_NUM_THREADS"): ["1"],
    Field("tags", "team"): ["NLP"],
    Field("packages", "torch"): ["2.13.0"],
    Field("", "started_at"): ["2026-11-25T08:30:00.000000Z"],
}


def matches(text: str) -> bool:
    return is_match(parse_filter(text), lambda field: RUN.get(field, []))


@pytest.mark.parametrize(
    "text",
    [
        'status = "failed"',
        "status = 'failed'",
        'attributes.status = "failed"',
        'settings."torch.version" = "2.13.0+cpu"',
        "settings.torch.version = '2.13.0+cpu'",
        "settings.`torch.version` like '2.13.%'",
        "settings.torch.version like '2_13%'",
        'env.OMP_NUM_THREADS = "1"',
        "config.lr > 0.05 and config.lr <= .1",
        "config.lr = 1e-1",
        "steps = 120.0",
        "started_at > '2026-11-25' and started_at < '2026-11-26'",
        "started_at = '2026-11-25T09:30+01:00'",
        "steps >= 120 and steps < 121",
        "config.layers = 3",
        "config.is_fast = TRUE",
        'tags.team ~ "lp"',
        'tags.team in ("cv", "NLP")',
        'tags.team not in ("cv")',
        'status != "crashed"',
        "config.lr is not null and config.dropout is null",
        'not status = "crashed"',
        "not config.dropout > 0.1",
        'status = "crashed" or status = "failed" and steps > 1',
        '(status = "crashed" or status = "failed") and not (steps > 200 or config.lr > 1)',
    ],
)
def test_holds(text: str) -> None:
    assert matches(text)


@pytest.mark.parametrize(
    "text",
    [
        'status = "Failed"',
        "config.lr > 0.1",
        "config.is_fast = 1",
        'steps = "120"',
        "env.OMP_NUM_THREADS = 1",
        "config.dropout != 0.1",
        "config.layers != 3",
        "config.layers not in (3)",
        "settings.torch.version like '2.13'",
        'tags.team in ("nlp")',
        'status = "crashed" and steps > 1 or config.lr > 5',
    ],
)
def test_does_not_hold(text: str) -> None:
    assert not matches(text)


@pytest.mark.parametrize("text", ["", "a.b", "config.lr = 1 and steps", "not config.lr", "(steps"])
def test_refuses_what_is_no_field(text: str) -> None:
    with pytest.raises(FilterInvalid):
        parse_field(text)


def test_reads_a_field() -> None:
    assert parse_field('settings."torch.version"') == Field("settings", "torch.version")


def test_binds_and_before_or_and_not_first() -> None:
    wanted = parse_filter('status = "a" or not status = "b" and status = "c"')

    first, second, third = (Comparison(STATUS, "=", text) for text in "abc")
    assert wanted == Either((first, All((Not(second), third))))


def test_takes_keywords_within_longer_words_for_names() -> None:
    assert parse_filter("config.android = 1") == Comparison(Field("config", "android"), "=", 1)


def test_reads_what_is_escaped_in_a_text() -> None:
    assert parse_filter(r'name = "a\"b\\c"') == Comparison(Field("", "name"), "=", r'a"b\c')


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("", 0, "field"),
        ("status", 6, "like"),
        ("status failed", 7, "a comparison (= != < <= > >= ~), `not`, `in`, `like` or `is`"),
        ('status = "a" b', 13, "`and`, `or` or the end"),
        ("lr > 0.1", 0, "section.key, such as config.lr"),
        ("config = 1", 0, "section.key, such as config.KEY"),
        ("status = ", 9, 'a text in quotation marks, such as "digits"'),
        ("status = failed", 9, 'such as "failed", a number, true or false'),
        ('status == "failed"', 8, 'such as "digits", a number, true or false'),
        ('status = "failed', 9, 'a " that ends the text, too'),
        ('status = "a" and', 16, "field"),
        ('(status = "a"', 13, ")"),
        ('orders = "a"', 0, "one of id, project"),
        ('status = "a" and a.b = 1', 17, "a section: code"),
        ('started_at > "yesterday"', 24, "a moment in quotation marks"),
        ('started_at ~ "2026"', 0, "compared by"),
        ('command.argv = "--lr"', 0, "the attribute command"),
        ('generators.python.kind = "a"', 0, "states of generators are not searched"),
        ("steps ~ 5", 9, "a text in quotation marks"),
        ("status = null", 9, "found by `is null`"),
        ("a" * (LONGEST + 1), LONGEST, "at most"),
        ("steps = 1;drop", 9, "and"),
        (f"steps in ({','.join('1' * 300)})", 0, "at most 200 values"),
    ],
)
def test_says_where_reading_failed_and_what_was_expected(
    text: str, position: int, expected: str
) -> None:
    with pytest.raises(FilterInvalid, match="cannot be read at character") as caught:
        parse_filter(text)

    assert caught.value.position == position
    assert expected in caught.value.expected


def test_refuses_what_is_nested_too_deep() -> None:
    with pytest.raises(FilterInvalid, match="at most 50 deep"):
        parse_filter("not " * 100 + "steps = 1")


def test_does_not_mind_many_parentheses() -> None:
    assert parse_filter("(" * 200 + "steps=1" + ")" * 200) == parse_filter("steps = 1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["(", "field", "not"]),
        ("status", ["= != < <= > >= ~", "in", "is", "like", "not"]),
        ("status = ", ["false", "true", "value"]),
        ('status = "a"', ["and", "or", "the end"]),
        ("status ? ", []),
    ],
)
def test_knows_what_may_follow(text: str, words: list[str]) -> None:
    assert expected_next(text) == words


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(FilterInvalid):
        parse_filter(text)


KEYS = st.text(max_size=8).filter(lambda key: not {'"', "`"} <= set(key))
FIELDS = st.one_of(
    st.sampled_from([STATUS, Field("settings", "torch.version")]),
    st.builds(Field, st.just("config"), KEYS),
)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
)
CONDITIONS = st.one_of(
    st.builds(Comparison, FIELDS, st.sampled_from(["=", "<", "<=", ">", ">="]), SCALARS),
    st.builds(Comparison, FIELDS, st.sampled_from(["like", "~"]), st.text(max_size=8)),
    st.builds(Among, FIELDS, st.lists(SCALARS, min_size=1, max_size=3).map(tuple)),
    st.builds(Present, FIELDS),
)
FILTERS: st.SearchStrategy[Filter] = st.recursive(
    CONDITIONS,
    lambda parts: st.one_of(
        st.builds(Not, parts),
        st.builds(All, st.lists(parts, min_size=2, max_size=3).map(tuple)),
        st.builds(Either, st.lists(parts, min_size=2, max_size=3).map(tuple)),
    ),
)


@given(FILTERS)
def test_a_filter_that_is_written_down_reads_the_same(wanted: Filter) -> None:
    assert parse_filter(written(wanted)) == wanted
